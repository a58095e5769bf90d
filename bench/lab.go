package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lab is the place where the parts measure.
type lab struct {
	root    string // of the repository
	work    string // everything is made below
	bin     string // lazaret and lazaret-engine as built from root
	goroot  string
	rules   string // directory of rule sources, "" for the built-in rules only
	cores   int
	quick   bool
	clutter []func() error // undone by clean, the last first
	corpus  *corpus        // made once
	given   *ruleset       // read once
}

func newLab(ctx context.Context, o options, work string) (*lab, error) {
	if err := settleIn(); err != nil {
		return nil, err
	}
	l := &lab{work: work, bin: filepath.Join(work, "bin"), rules: o.rules, cores: runtime.NumCPU(), quick: o.quick}
	for _, q := range []struct {
		to   *string
		args []string
	}{{&l.root, []string{"list", "-m", "-f", "{{.Dir}}"}}, {&l.goroot, []string{"env", "GOROOT"}}} {
		out, err := output(ctx, "go", q.args...)
		if err != nil {
			return nil, err
		}
		*q.to = strings.TrimSpace(string(out))
	}
	if l.rules == "" {
		beside := filepath.Join(filepath.Dir(l.root), "shared", "data", "yara")
		if _, err := os.Stat(beside); err == nil {
			l.rules = beside
		}
	}
	for name, cgo := range map[string]string{"lazaret": "0", "lazaret-engine": "1"} {
		c := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", filepath.Join(l.bin, name), "./cmd/"+name)
		c.Dir, c.Env = l.root, append(os.Environ(), "CGO_ENABLED="+cgo)
		if err := quiet(c); err != nil {
			return nil, err
		}
	}
	return l, nil
}

// times returns how often something is repeated.
func (l *lab) times(n int) int {
	if l.quick {
		return min(n, 2)
	}
	return n
}

// later undoes something when the part ends.
func (l *lab) later(f func() error) { l.clutter = append(l.clutter, f) }

// clean undoes what a part made, the last first.
func (l *lab) clean() error {
	var errs []error
	for i := len(l.clutter) - 1; i >= 0; i-- {
		errs = append(errs, l.clutter[i]())
	}
	l.clutter = nil
	return errors.Join(errs...)
}

// dir makes an empty directory below the working directory.
func (l *lab) dir(name string) (string, error) {
	d := filepath.Join(l.work, name)
	if err := errors.Join(os.RemoveAll(d), os.MkdirAll(d, 0o755)); err != nil {
		return "", fmt.Errorf("making directory %s: %w", name, err)
	}
	return d, nil
}

// fileSystem makes an ext4 file system of the given size in a file and mounts
// it. Where there is memory enough the file is in memory, so that the figures
// are not those of a disk.
func (l *lab) fileSystem(ctx context.Context, name string, size int64) (string, error) {
	at, err := l.dir("fs-" + name)
	if err != nil {
		return "", err
	}
	mnt := filepath.Join(at, "mnt")
	if l.roomy() {
		if err := unix.Mount("lazaret-bench", at, "tmpfs", 0, fmt.Sprintf("size=%d", size+64<<20)); err != nil {
			return "", fmt.Errorf("mounting memory for %s: %w", name, err)
		}
		l.later(func() error { return unmount(at) })
	}
	image := filepath.Join(at, "image")
	if err := errors.Join(os.MkdirAll(mnt, 0o755), os.WriteFile(image, nil, 0o600), os.Truncate(image, size)); err != nil {
		return "", fmt.Errorf("making a file system: %w", err)
	}
	if _, err := output(ctx, "mkfs.ext4", "-q", "-F", image); err != nil {
		return "", err
	}
	if _, err := output(ctx, "mount", "-o", "loop", image, mnt); err != nil {
		return "", err
	}
	l.later(func() error { return unmount(mnt) })
	return mnt, nil
}

// roomy reports whether file systems fit into memory.
func (l *lab) roomy() bool {
	var s unix.Sysinfo_t
	return unix.Sysinfo(&s) == nil && s.Totalram*uint64(s.Unit) > 16<<30
}

// medium says where the file systems are.
func (l *lab) medium() string {
	if l.roomy() {
		return "ext4 on loop devices, their images in memory"
	}
	return "ext4 on loop devices, their images on disk"
}

// unmount waits a moment for descriptors that are just being closed.
func unmount(at string) error {
	var err error
	for range 200 {
		if err = unix.Unmount(at, 0); err == nil {
			return nil
		}
		time.Sleep(25 * time.Millisecond)
	}
	return fmt.Errorf("unmounting %s: %w", at, errors.Join(err, unix.Unmount(at, unix.MNT_DETACH)))
}

// output runs a command and returns its standard output; the error carries what
// it said on standard error.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	c := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	c.Stdout = &out
	err := quiet(c)
	return out.Bytes(), err
}

func quiet(c *exec.Cmd) error {
	var said tail
	c.Stderr = &said
	if err := c.Run(); err != nil {
		return fmt.Errorf("running %s: %w: %s", strings.Join(c.Args, " "), err, bytes.TrimSpace(said.b))
	}
	return nil
}

// timed runs a command and returns how long it took; what it prints is thrown
// away. Exit codes in fine are no errors.
func timed(c *exec.Cmd, fine ...int) (time.Duration, error) {
	if c.Stdout == nil {
		c.Stdout = io.Discard
	}
	begin := time.Now()
	err := quiet(c)
	took := time.Since(begin)
	for _, code := range fine {
		if c.ProcessState != nil && c.ProcessState.ExitCode() == code {
			err = nil
		}
	}
	return took, err
}

// tail keeps the end of what is written.
type tail struct{ b []byte }

func (t *tail) Write(p []byte) (int, error) {
	const keep = 4 << 10
	t.b = append(t.b, p...)
	if len(t.b) > 2*keep {
		t.b = append(t.b[:0], t.b[len(t.b)-keep:]...)
	}
	return len(p), nil
}
