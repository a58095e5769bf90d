package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/bench/report"
)

// contest is yara and us over the same files with the same rules.
type contest struct {
	l     *lab
	d     *daemon
	rules *ruleset
	dir   string

	yara, yaraBusy, first, firstBusy *report.Series
	second                           *report.Series // may be nil
}

func (c *contest) add(p *report.Part, suffix string) {
	yara := fmt.Sprintf("yara -C -f -w -r -p %d rules.yarc CORPUS", c.l.cores)
	c.yara = p.Add("yara"+suffix, yara, report.Seconds)
	c.first = p.Add("first scan, rules, through the daemon"+suffix, "lazaret scan CORPUS", report.Seconds)
	c.yaraBusy = p.Add("processor time of yara"+suffix, yara, report.Seconds)
	c.firstBusy = p.Add("processor time of our first scan, all processes"+suffix, "lazaret scan CORPUS", report.Seconds)
}

// run takes turns, n times; each first scan is by a daemon that knows nothing
// about files.
func (c *contest) run(ctx context.Context, n int) error {
	for range c.l.times(n) {
		if err := errors.Join(c.d.forget(ctx, 0), c.warm(ctx), c.d.idle(ctx)); err != nil {
			return err
		}
		cmd := exec.CommandContext(ctx, "yara", "-C", "-f", "-w", "-r", "-p", strconv.Itoa(c.l.cores), c.rules.compiled, c.dir)
		took, err := timed(cmd)
		if err != nil {
			return err
		}
		c.yara.AddTime(took)
		c.yaraBusy.AddTime(cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())

		before, err := busy(c.d.cmd.Process.Pid)
		if err != nil {
			return err
		}
		cmd = c.d.command(ctx, "scan", c.dir)
		if took, err = timed(cmd, found...); err != nil {
			return err
		}
		if err := c.d.idle(ctx); err != nil {
			return err
		}
		after, err := busy(c.d.cmd.Process.Pid)
		if err != nil {
			return err
		}
		c.first.AddTime(took)
		c.firstBusy.AddTime(after - before + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime())
		for range 3 {
			if c.second == nil {
				break
			}
			if took, err = timed(c.d.command(ctx, "scan", c.dir), found...); err != nil {
				return err
			}
			c.second.AddTime(took)
		}
	}
	return nil
}

func (c *contest) warm(ctx context.Context) error { return warm(ctx, c.dir) }

// rates says both speeds.
func (c *contest) rates(files int, bytes int64) string {
	one := func(s *report.Series) string {
		return fmt.Sprintf("%.0f MB/s and %.0f files/s", float64(bytes)/1e6/s.Median(), float64(files)/s.Median())
	}
	return "We do " + one(c.first) + ", yara " + one(c.yara)
}

// unpacked makes a tree of those files of the corpus in which we find no
// members: the ones where both scanners look at the same bytes.
func (l *lab) unpacked(ctx context.Context, d *daemon, c *corpus) (dir string, files int, bytes int64, err error) {
	packed := map[string]bool{}
	if err := d.lines(ctx, c.dir, func(line *api.ScanLine) {
		if path, _, ok := strings.Cut(line.Path, "!/"); ok {
			packed[path] = true
		}
	}); err != nil {
		return "", 0, 0, err
	}
	if dir, err = l.dir("plain"); err != nil {
		return "", 0, 0, err
	}
	for _, path := range c.list {
		if packed[path] {
			continue
		}
		to := filepath.Join(dir, strings.TrimPrefix(path, c.dir))
		err := os.MkdirAll(filepath.Dir(to), 0o755)
		if err == nil {
			err = os.Link(path, to)
		}
		info, err2 := os.Stat(path)
		if err := errors.Join(err, err2); err != nil {
			return "", 0, 0, fmt.Errorf("choosing files that are not packed: %w", err)
		}
		files, bytes = files+1, bytes+info.Size()
	}
	return dir, files, bytes, nil
}
