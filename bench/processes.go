package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// process is one process of a tree.
type process struct {
	pid, parent int
	command     string
	busy        time.Duration // processor time so far, of children it waited for too
}

// clockTick is the unit of times in /proc: USER_HZ, 100 on all of Linux.
const clockTick = time.Second / 100

// tree returns a process and its descendants, see proc_pid_stat(5).
func tree(root int) ([]process, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return nil, err
	}
	all := map[int]process{}
	for _, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		if p, ok := parseStat(b); ok {
			all[p.pid] = p
		}
	}
	var found []process
	for _, p := range all {
		for at := p.pid; at > 1; at = all[at].parent {
			if at == root {
				cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", p.pid))
				if err == nil {
					p.command = strings.TrimSpace(string(bytes.ReplaceAll(cmdline, []byte{0}, []byte{' '})))
				}
				found = append(found, p)
				break
			}
		}
	}
	if len(found) == 0 {
		return nil, fmt.Errorf("looking at process %d: it is gone", root)
	}
	return found, nil
}

func parseStat(b []byte) (p process, ok bool) {
	number, rest, ok := bytes.Cut(b, []byte(" ("))
	end := bytes.LastIndexByte(rest, ')')
	if !ok || end < 0 {
		return p, false
	}
	fields := strings.Fields(string(rest[end+1:]))
	if len(fields) < 15 {
		return p, false
	}
	var n [3]int64
	for i, s := range []string{string(number), fields[1], fields[11]} {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return p, false
		}
		n[i] = v
	}
	p.pid, p.parent = int(n[0]), int(n[1])
	for _, s := range fields[11:15] {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return p, false
		}
		p.busy += time.Duration(v) * clockTick
	}
	return p, true
}

// busy is the processor time of a tree.
func busy(root int) (time.Duration, error) {
	list, err := tree(root)
	var sum time.Duration
	for _, p := range list {
		sum += p.busy
	}
	return sum, err
}

// idle waits until a tree has used less than 3 % of one core for a second, one
// minute at most.
func idle(ctx context.Context, root int) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	before, err := busy(root)
	for err == nil {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for process %d to become idle: %w", root, context.Cause(ctx))
		case <-time.After(time.Second):
		}
		var now time.Duration
		if now, err = busy(root); now-before <= 30*time.Millisecond {
			return err
		}
		before = now
	}
	return err
}

// memoryUse of one process in bytes.
type memoryUse struct{ rss, pss, private int64 }

// use reads the memory of a process, see proc_pid_smaps(5).
func use(pid int) (m memoryUse, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return m, fmt.Errorf("reading memory of a process: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) != 3 || f[2] != "kB" {
			continue
		}
		kb, err := strconv.ParseInt(f[1], 10, 64)
		if err != nil {
			return m, fmt.Errorf("reading memory of a process: %w", err)
		}
		switch f[0] {
		case "Rss:":
			m.rss = kb << 10
		case "Pss:":
			m.pss = kb << 10
		case "Private_Clean:", "Private_Dirty:":
			m.private += kb << 10
		}
	}
	return m, nil
}
