package main

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/lazaret/lazaret/bench/report"
)

// clamHashes is how many hashes both get.
const clamHashes = 100_000

func againstClamscan(ctx context.Context, l *lab, c *corpus, p *report.Part) error {
	db, err := l.dir("hashes")
	if err != nil {
		return err
	}
	list := filepath.Join(db, "bench.hsb")
	if err := c.hashes(list, clamHashes); err != nil {
		return err
	}
	d, err := l.monitoring(ctx)
	if err != nil {
		return err
	}
	if _, err := d.learn(ctx, list); err != nil {
		return err
	}
	parts, err := c.split(l, l.cores)
	if err != nil {
		return err
	}
	p.Describe("Hashes: %d SHA-256 in one .hsb file for both, %d of them of files planted in the corpus. clamscan has one thread, so %d run at once, each over its share of the corpus.", clamHashes, len(c.planted), l.cores)
	clam := p.Add(fmt.Sprintf("%d clamscan at once", l.cores), "clamscan -d bench.hsb --infected --no-summary --file-list=SHARE", report.Seconds)
	first := p.Add("first scan, hashes, through the daemon", "lazaret scan CORPUS", report.Seconds)
	theirs, ours := map[string]bool{}, map[string]bool{}
	for range l.times(3) {
		took, err := clamscan(ctx, list, parts, theirs)
		if err != nil {
			return err
		}
		clam.AddTime(took)
		if err := errors.Join(d.forget(ctx, 0), c.warm(ctx), d.idle(ctx)); err != nil {
			return err
		}
		if took, err = timed(d.command(ctx, "scan", c.dir), found...); err != nil {
			return err
		}
		first.AddTime(took)
	}
	if err := d.matches(ctx, c.dir, "hash", ours); err != nil {
		return err
	}
	p.Promise(report.Faster("first scan against clamscan, same hashes, same cores", first, clam, 1))
	wrong := len(without(theirs, c.set())) + len(without(c.set(), theirs))
	named := map[string]bool{}
	for match := range ours {
		_, path, _ := strings.Cut(match, " ")
		named[path] = true
	}
	wrong += len(without(named, c.set())) + len(without(c.set(), named))
	p.Promise(report.Promise{Text: "planted files missed, or others found, by either", Ours: float64(wrong), Unit: "files", Ratio: float64(wrong), Limit: 0})
	return nil
}

// hashes writes a list of n hashes, those of the planted files first.
func (c *corpus) hashes(to string, n int) error {
	f, err := os.Create(to)
	if err != nil {
		return fmt.Errorf("writing hashes: %w", err)
	}
	w := bufio.NewWriterSize(f, 1<<20)
	for i, path := range c.planted {
		b, err := os.ReadFile(path)
		if err != nil {
			return errors.Join(fmt.Errorf("writing hashes: %w", err), f.Close())
		}
		fmt.Fprintf(w, "%x:%d:Bench.Planted.%d\n", sha256.Sum256(b), len(b), i)
	}
	for i := range n - len(c.planted) {
		hash, size := invented(i)
		fmt.Fprintf(w, "%x:%d:Bench.%d\n", hash, size, i)
	}
	if err := errors.Join(w.Flush(), f.Close()); err != nil {
		return fmt.Errorf("writing hashes: %w", err)
	}
	return nil
}

// invented is the hash and size of a file that does not exist, the same in
// every run.
func invented(i int) ([32]byte, uint32) {
	h := sha256.Sum256(binary.LittleEndian.AppendUint64([]byte("lazaret bench"), uint64(i)))
	return h, binary.LittleEndian.Uint32(h[:])%(4<<20) + 1
}

// split writes lists of files of about the same size together.
func (c *corpus) split(l *lab, n int) ([]string, error) {
	lists, weight := make([][]string, n), make([]int64, n)
	for _, path := range c.list {
		info, err := os.Stat(path)
		if err != nil {
			return nil, fmt.Errorf("dividing the corpus: %w", err)
		}
		least := 0
		for i := range weight {
			if weight[i] < weight[least] {
				least = i
			}
		}
		lists[least] = append(lists[least], path)
		weight[least] += info.Size() + 20_000 // a file costs something, too
	}
	paths := make([]string, n)
	for i, list := range lists {
		paths[i] = filepath.Join(l.work, fmt.Sprintf("share-%d", i))
		if err := os.WriteFile(paths[i], []byte(strings.Join(list, "\n")+"\n"), 0o644); err != nil {
			return nil, fmt.Errorf("dividing the corpus: %w", err)
		}
	}
	return paths, nil
}

// clamscan scans all shares at once and notes the infected files.
func clamscan(ctx context.Context, db string, shares []string, infected map[string]bool) (time.Duration, error) {
	begin := time.Now()
	var wg sync.WaitGroup
	errs, said := make([]error, len(shares)), make([]strings.Builder, len(shares))
	for i, share := range shares {
		wg.Go(func() {
			c := exec.CommandContext(ctx, "clamscan", "-d", db, "--infected", "--no-summary", "--file-list="+share)
			c.Stdout = io.Writer(&said[i])
			_, errs[i] = timed(c, 0, 1)
		})
	}
	wg.Wait()
	took := time.Since(begin)
	for i := range said {
		for line := range strings.Lines(said[i].String()) {
			if path, _, ok := strings.Cut(line, ": "); ok && strings.HasSuffix(line, " FOUND\n") {
				infected[path] = true
			}
		}
	}
	return took, errors.Join(errs...)
}

// set is the planted files.
func (c *corpus) set() map[string]bool {
	m := map[string]bool{}
	for _, path := range c.planted {
		m[path] = true
	}
	return m
}
