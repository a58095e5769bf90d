package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/bench/report"
)

// access measures what an open costs that the kernel answers itself, because
// the file is known to be clean.
func access(ctx context.Context, l *lab) (*report.Part, error) {
	p := &report.Part{Name: "access", Title: "opening clean files that were inspected before"}
	p.Describe("Two file systems (%s); one is protected by lazaret up, the other is not. Batches of 2,000 open+close of 4 KiB files by bare system calls alternate between them.", l.medium())
	guarded, err := l.fileSystem(ctx, "guarded", 256<<20)
	if err != nil {
		return nil, err
	}
	free, err := l.fileSystem(ctx, "free", 256<<20)
	if err != nil {
		return nil, err
	}
	const files = 500
	inside, err := plant(guarded, files)
	if err != nil {
		return nil, err
	}
	outside, err := plant(free, files)
	if err != nil {
		return nil, err
	}
	batches := 300
	if l.quick {
		batches = 50
	}

	before := p.Add("one file, same file system before protection", "open+close", report.Nanoseconds)
	if err := opens(batches, pair{before, inside[:1]}); err != nil {
		return nil, err
	}
	d, err := l.daemon(ctx, guarded)
	if err != nil {
		return nil, err
	}
	first := p.Add("first open of a file nobody has inspected", "open+close", report.Nanoseconds)
	for _, path := range inside {
		took, err := opened([]*byte{path}, 1)
		if err != nil {
			return nil, err
		}
		first.Add(took)
	}
	if err := marked(ctx, d, inside); err != nil {
		return nil, err
	}
	one := p.Add("one file, protected", "open+close", report.Nanoseconds)
	oneFree := p.Add("one file, not protected", "open+close", report.Nanoseconds)
	many := p.Add(fmt.Sprintf("%d files in turn, protected", files), "open+close", report.Nanoseconds)
	manyFree := p.Add(fmt.Sprintf("%d files in turn, not protected", files), "open+close", report.Nanoseconds)
	if err := opens(batches, pair{one, inside[:1]}, pair{oneFree, outside[:1]}, pair{many, inside}, pair{manyFree, outside}); err != nil {
		return nil, err
	}
	p.Promise(report.AtMost("open+close of one clean file, protected against not protected", one, oneFree, 1.2))
	p.Promise(report.AtMost("the same against the same file system before protection", one, before, 1.2))
	p.Promise(report.AtMost(fmt.Sprintf("open+close of %d clean files in turn", files), many, manyFree, 1.2))
	p.Note("The tenth percentiles: one file %.0f ns protected, %.0f ns not protected (ratio %.2f); before protection %.0f ns.",
		one.Quantile(0.1), oneFree.Quantile(0.1), one.Quantile(0.1)/oneFree.Quantile(0.1), before.Quantile(0.1))
	return p, nil
}

// plant writes small files of different content and returns their paths for
// system calls.
func plant(dir string, n int) ([]*byte, error) {
	paths := make([]*byte, n)
	for i := range paths {
		path := filepath.Join(dir, fmt.Sprintf("file-%04d", i))
		content := make([]byte, 4096)
		copy(content, fmt.Sprintf("%d %s\n", i, dir))
		if err := os.WriteFile(path, content, 0o644); err != nil {
			return nil, fmt.Errorf("writing files to open: %w", err)
		}
		p, err := unix.BytePtrFromString(path)
		if err != nil {
			return nil, fmt.Errorf("writing files to open: %w", err)
		}
		paths[i] = p
	}
	unix.Sync()
	return paths, nil
}

// marked opens files again and again until opens are as fast as they get: the
// service asks the kernel to remember a file only some time after its last
// change, and a few at a time.
func marked(ctx context.Context, d *daemon, paths []*byte) error {
	want := int64(len(paths))
	for range 300 {
		if _, err := opened(paths, len(paths)); err != nil {
			return err
		}
		r, err := d.report(ctx)
		if err != nil {
			return err
		}
		if r.Stats["fanotify_marks"] >= want {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
	return fmt.Errorf("waiting for %d files to be remembered by the kernel: they are not", want)
}

type pair struct {
	series *report.Series
	paths  []*byte
}

// opens measures batches of all pairs in turn.
func opens(batches int, pairs ...pair) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range batches {
		for _, p := range pairs {
			ns, err := opened(p.paths, 2000)
			if err != nil {
				return err
			}
			p.series.Add(ns)
		}
	}
	return nil
}

// opened returns the nanoseconds that one open and close take.
func opened(paths []*byte, n int) (float64, error) {
	at := unix.AT_FDCWD
	begin := time.Now()
	for i := range n {
		fd, _, errno := unix.RawSyscall6(unix.SYS_OPENAT, uintptr(at), uintptr(unsafe.Pointer(paths[i%len(paths)])), unix.O_RDONLY|unix.O_CLOEXEC, 0, 0, 0)
		if errno != 0 {
			return 0, fmt.Errorf("opening a clean file: %w", errno)
		}
		if _, _, errno := unix.RawSyscall(unix.SYS_CLOSE, fd, 0, 0); errno != 0 {
			return 0, fmt.Errorf("closing a clean file: %w", errno)
		}
	}
	return float64(time.Since(begin).Nanoseconds()) / float64(n), nil
}
