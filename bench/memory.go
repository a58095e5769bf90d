package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/lazaret/lazaret/bench/report"
)

// memoryHashes is what the hash sets must hold.
const memoryHashes = 10_000_000

// memory measures what the processes hold with large signatures after work.
func memory(ctx context.Context, l *lab) (*report.Part, error) {
	p := &report.Part{Name: "memory", Title: "resident memory"}
	c, err := l.sample(ctx)
	if err != nil {
		return nil, err
	}
	rules, err := l.rulesFor(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := l.dir("many")
	if err != nil {
		return nil, err
	}
	list := filepath.Join(dir, "bench.hsb")
	if err := c.hashes(list, memoryHashes); err != nil {
		return nil, err
	}
	d, err := l.monitoring(ctx)
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	paths := []string{list}
	if l.rules != "" {
		paths = append(paths, rules.dir)
	}
	r, err := d.learn(ctx, paths...)
	if err != nil {
		return nil, err
	}
	imported := time.Since(begin)
	if _, err := timed(d.command(ctx, "scan", c.dir), found...); err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-time.After(10 * time.Second):
	}
	p.Describe("lazaret up with %s (%d rules with the built-in ones) and %d SHA-256 hashes, after a scan of the corpus and 10 s of rest. The corpus: %s.", rules.what, r.Rules, r.Hashes, c)
	p.Note("Importing and activating these signatures took %.0f s.", imported.Seconds())
	return p, l.weigh(d, p)
}

// weigh adds up the memory of each kind of process, once: it does not change
// while nothing happens.
func (l *lab) weigh(d *daemon, p *report.Part) error {
	list, err := tree(d.cmd.Process.Pid)
	if err != nil {
		return err
	}
	const command = "/proc/PID/smaps_rollup"
	sums := map[string]memoryUse{}
	number := map[string]int{}
	for _, x := range list {
		m, err := use(x.pid)
		if err != nil {
			return err
		}
		kind := "service"
		switch {
		case x.pid == d.cmd.Process.Pid:
			kind = "supervisor"
		case strings.Contains(x.command, "lazaret-engine"):
			kind = "workers"
		}
		s := sums[kind]
		sums[kind] = memoryUse{s.rss + m.rss, s.pss + m.pss, s.private + m.private}
		number[kind]++
	}
	for _, kind := range []string{"supervisor", "service", "workers"} {
		if number[kind] == 0 {
			return fmt.Errorf("weighing processes: there is no %s", kind)
		}
		for _, v := range []struct {
			what  string
			bytes int64
		}{{"proportional (PSS)", sums[kind].pss}, {"resident (RSS)", sums[kind].rss}, {"private", sums[kind].private}} {
			p.Add(fmt.Sprintf("%s, %d processes, %s", kind, number[kind], v.what), command, report.Megabytes).Add(float64(v.bytes) / 1e6)
		}
	}
	pss := float64(sums["service"].pss+sums["workers"].pss) / 1e6
	rss := float64(sums["service"].rss+sums["workers"].rss) / 1e6
	p.Promise(report.Promise{Text: "service and workers together, PSS", Ours: pss, Unit: report.Megabytes, Ratio: pss, Limit: 200})
	p.Promise(report.Promise{Text: "service and workers together, RSS (shared pages counted once per process)", Ours: rss, Unit: report.Megabytes, Published: true})
	return nil
}
