package signature

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/signature/builtin"
	"github.com/lazaret/lazaret/internal/threat"
)

// Corpus is what a bundle is tried on before it protects anything.
type Corpus struct {
	// Samples that come with the program.
	Samples []builtin.Sample
	// Good names files and directories, read to any depth, that no rule may
	// match. At most MaxGood files.
	Good []string
}

// MaxGood bounds the known-good files of a self-test.
const MaxGood = 20_000

// ErrSelfTest is wrapped by errors that say which rule or file a bundle failed
// on.
var ErrSelfTest = errors.New("self-test failed")

// DefaultCorpus is the built-in samples and the files without which a host
// cannot run, as far as they are there: a rule that matches one of these would
// stop the host. More known-good files and directories can be added.
func DefaultCorpus(good ...string) Corpus {
	c := Corpus{Samples: builtin.Samples(), Good: slices.Clone(good)}
	for _, pattern := range []string{
		"/bin/sh", "/usr/bin/bash", "/usr/bin/busybox", "/usr/bin/env", "/usr/bin/ls", "/usr/bin/cp", "/usr/bin/mount",
		"/usr/bin/ssh", "/usr/sbin/sshd", "/usr/bin/sudo", "/usr/bin/systemctl", "/usr/bin/dpkg", "/usr/bin/rpm",
		"/usr/bin/perl", "/usr/bin/python3", "/usr/bin/runc", "/usr/sbin/runc", "/usr/bin/containerd*", "/usr/bin/dockerd",
		"/usr/bin/kubelet", "/usr/bin/crio", "/usr/lib/systemd/systemd", "/usr/lib/systemd/systemd-*d",
		"/lib/*-linux-gnu/libc.so.6", "/lib64/libc.so.6", "/lib/ld-musl-*", "/lib64/ld-linux-*", "/lib/ld-linux-*",
		"/etc/passwd", "/etc/fstab", "/etc/hosts", "/etc/profile", "/etc/bash.bashrc",
	} {
		found, err := filepath.Glob(pattern)
		if err == nil {
			c.Good = append(c.Good, found...)
		}
	}
	if self, err := os.Executable(); err == nil {
		c.Good = append(c.Good, self)
	}
	return c
}

// SelfTest inspects the corpus: every bad sample must be detected by the
// signature it is meant for, nothing good may be, and nothing may crash the
// engine or take too long. The error wraps ErrSelfTest, and names rules and
// files, when the bundle is at fault.
func SelfTest(ctx context.Context, inspector engine.Inspector, c Corpus) error {
	t := &selfTest{inspector: inspector}
	for _, s := range c.Samples {
		if err := t.sample(ctx, s); err != nil {
			return err
		}
	}
	n := 0
	for _, root := range c.Good {
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return fmt.Errorf("reading the known-good files: %w", err)
			}
			if path == root && d.Type()&fs.ModeSymlink != 0 {
				if path, err = filepath.EvalSymlinks(path); err != nil {
					return fmt.Errorf("reading the known-good files: %w", err)
				}
			} else if !d.Type().IsRegular() {
				return nil
			}
			if n++; n > MaxGood {
				return fmt.Errorf("reading the known-good files: there are more than %d", MaxGood)
			}
			return t.goodFile(ctx, path)
		})
		if err != nil {
			return err
		}
	}
	if len(t.faults) > 0 {
		return fmt.Errorf("%w: %s", ErrSelfTest, strings.Join(t.faults, "; "))
	}
	return nil
}

type selfTest struct {
	inspector engine.Inspector
	faults    []string
}

func (t *selfTest) fault(format string, args ...any) {
	const enough = 20
	if len(t.faults) < enough {
		t.faults = append(t.faults, fmt.Sprintf(format, args...))
	}
}

func (t *selfTest) sample(ctx context.Context, s builtin.Sample) error {
	f, err := memoryFile(s.Name, s.Data)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // memory
	r, err := t.inspector.Inspect(ctx, f, engine.Limits{})
	if err != nil {
		return fmt.Errorf("testing sample %s: %w", s.Name, err)
	}
	if s.Signature == "" {
		t.good(s.Name, r, func(signature string) bool { return s.Twin && !builtin.Own(signature) })
		return nil
	}
	for _, o := range r.Objects {
		for _, d := range o.Detections {
			if d.Signature == s.Signature {
				return nil
			}
		}
	}
	t.fault("nothing detects the known-bad sample %s as %s", s.Name, s.Signature)
	return nil
}

func (t *selfTest) goodFile(ctx context.Context, path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return fmt.Errorf("reading the known-good files: %w", err)
	}
	defer func() { _ = f.Close() }() // only read
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return errors.Join(fmt.Errorf("reading the known-good file %s: it was replaced", path), err)
	}
	r, err := t.inspector.Inspect(ctx, f, engine.Limits{})
	if err != nil {
		return fmt.Errorf("testing known-good file %s: %w", path, err)
	}
	t.good(path, r, func(string) bool { return false })
	return nil
}

// good checks a result that should have nothing in it but what may match.
// Partial results are fine, except when the engine is to blame.
func (t *selfTest) good(name string, r *engine.Result, may func(signature string) bool) {
	for _, o := range r.Objects {
		if o.Verdict.Threat() {
			for _, d := range o.Detections {
				if !may(d.Signature) {
					t.fault("%s matches the known-good file %s", d.Signature, name)
				}
			}
		}
		for _, reason := range o.Reasons {
			switch reason.Code {
			case threat.ReasonEngineCrashed, threat.ReasonEngineTimeout:
				t.fault("the known-good file %s: %s", name, reason.Text)
			}
		}
	}
}

// memoryFile holds a sample without touching a file system.
func memoryFile(name string, data []byte) (*os.File, error) {
	fd, err := unix.MemfdCreate("sample", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("preparing sample %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := f.Write(data); err != nil {
		return nil, errors.Join(fmt.Errorf("preparing sample %s: %w", name, err), f.Close())
	}
	return f, nil
}
