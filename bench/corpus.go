package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
)

// corpus is a fixed sample of the files of this machine.
type corpus struct {
	dir   string
	list  []string // paths in dir
	bytes int64
	// planted are files of the list that exist nowhere else: their hashes can
	// be listed without listing something that the machine needs.
	planted []string
}

const (
	corpusFiles = 8000
	corpusBytes = 200 << 20
	corpusLarge = 32 << 20 // larger files are left out
)

// sample copies every k-th regular file of /usr, in the order of their names,
// to a directory that nobody watches, and reads it once so that it is in
// memory. It is made once for all parts.
func (l *lab) sample(ctx context.Context) (*corpus, error) {
	if l.corpus != nil {
		return l.corpus, l.corpus.warm(ctx)
	}
	dir, err := l.dir("corpus")
	if err != nil {
		return nil, err
	}
	all, sizes, err := regular("/usr")
	if err != nil {
		return nil, fmt.Errorf("choosing a corpus: %w", err)
	}
	var total int64
	for _, n := range sizes {
		total += n
	}
	want, limit := corpusFiles, int64(corpusBytes)
	if l.quick {
		want, limit = want/4, limit/4
	}
	step := max(len(all)/want, int(total/limit), 1)
	c := &corpus{dir: dir}
	for i := step / 2; i < len(all); i += step {
		// Names stay, because yara's rules may ask for the extension; the
		// number keeps them apart. A hundred directories, like a real tree.
		to := filepath.Join(dir, strconv.Itoa(len(c.list)%100), strconv.Itoa(len(c.list))+"-"+filepath.Base(all[i]))
		n, err := copyFile(all[i], to)
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return nil, fmt.Errorf("choosing a corpus: %w", err)
		}
		c.list, c.bytes = append(c.list, to), c.bytes+n
	}
	if len(c.list) == 0 {
		return nil, errors.New("choosing a corpus: /usr has no files")
	}
	if err := c.plant(10); err != nil {
		return nil, err
	}
	l.corpus = c
	return c, c.warm(ctx)
}

// plant adds files of its own to the corpus.
func (c *corpus) plant(n int) error {
	dir := filepath.Join(c.dir, "planted")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("planting files: %w", err)
	}
	for i := range n {
		path := filepath.Join(dir, strconv.Itoa(i))
		text := fmt.Appendf(nil, "harmless file %d of the benchmark\n", i)
		if err := os.WriteFile(path, text, 0o644); err != nil {
			return fmt.Errorf("planting files: %w", err)
		}
		c.list, c.planted, c.bytes = append(c.list, path), append(c.planted, path), c.bytes+int64(len(text))
	}
	return nil
}

func (c *corpus) String() string {
	return fmt.Sprintf("a fixed sample of /usr, %d files, %.0f MB (every k-th file by name, none above 32 MiB), in the page cache, on a file system that nobody watches", len(c.list), float64(c.bytes)/1e6)
}

// warm reads the files of a corpus into the page cache.
func (c *corpus) warm(ctx context.Context) error { return warm(ctx, c.dir) }

func warm(ctx context.Context, dir string) error {
	_, err := output(ctx, "sh", "-c", `exec cat -- "$1"/*/* >/dev/null`, "sh", dir)
	return err
}

func regular(root string) (paths []string, sizes []int64, err error) {
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Size() > 0 && info.Size() <= corpusLarge {
			paths, sizes = append(paths, path), append(sizes, info.Size())
		}
		return err
	})
	return paths, sizes, err
}

func copyFile(from, to string) (int64, error) {
	r, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer r.Close()
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return 0, err
	}
	w, err := os.Create(to)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(w, r)
	return n, errors.Join(err, w.Close())
}
