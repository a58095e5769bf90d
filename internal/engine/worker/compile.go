package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/sandbox"
)

// Source is one file of YARA rules.
type Source struct {
	Name string `json:"name"` // shown in errors
	Text []byte `json:"text"` // as its author wrote it, any encoding
}

// CompileRequest is what the compiler gets on its standard input.
type CompileRequest struct {
	Sources []Source `json:"sources"`
}

// CompileReport is what the compiler says on its standard output; Files is
// added by the parent.
type CompileReport struct {
	Rules    int               `json:"rules"`   // that can be reported
	Classes  map[string]int    `json:"classes"` // rules per content class, helpers included
	Errors   []api.ImportError `json:"errors,omitempty"`
	Warnings []api.ImportError `json:"warnings,omitempty"`
	// Files are the files written, with their SHA-256 in hexadecimal.
	Files   map[string]string `json:"files,omitempty"`
	Sandbox *sandbox.Report   `json:"sandbox,omitempty"`
	// Failure is set if nothing could be compiled at all.
	Failure string `json:"failure,omitempty"`
}

// CompiledFiles are the compiler's outputs; it gets them as descriptors from 3
// on, in this order.
var CompiledFiles = []string{"other.yarc", "elf.yarc", "pe.yarc", "rules.json"}

const (
	compileTimeout = 10 * time.Minute
	maxReport      = 64 << 20
)

// Compile turns rule sources into compiled rules in dir, which must exist. It
// runs the engine program in a sandbox: sources may come from strangers. A
// source that crashes the compiler is found, reported and left out.
func Compile(ctx context.Context, program string, in CompileRequest, dir string) (*CompileReport, error) {
	s, err := newSpawner(program, 0, 0)
	if err != nil {
		return nil, err
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(ctx, compileTimeout)
	defer cancel()
	c := compiler{spawner: s, args: []string{"compile"}}
	return c.compile(ctx, in, dir)
}

type compiler struct {
	spawner *spawner
	args    []string
}

func (c *compiler) compile(ctx context.Context, in CompileRequest, dir string) (*CompileReport, error) {
	report, err := c.run(ctx, in, dir)
	var faults []api.ImportError
	if errors.Is(err, errCompilerCrashed) && ctx.Err() == nil {
		if in.Sources, faults, err = c.survivors(ctx, in.Sources); err == nil {
			report, err = c.run(ctx, in, dir)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("compiling rules: %w", err)
	}
	report.Errors = append(report.Errors, faults...)
	return report, nil
}

// survivors halves the sources until those that crash the compiler are found.
func (c *compiler) survivors(ctx context.Context, sources []Source) (good []Source, faults []api.ImportError, err error) {
	dir, err := os.MkdirTemp("", "lazaret-compile-")
	if err != nil {
		return nil, nil, fmt.Errorf("creating a scratch directory: %w", err)
	}
	defer os.RemoveAll(dir)
	var search func([]Source) error
	search = func(part []Source) error {
		_, err := c.run(ctx, CompileRequest{Sources: part}, dir)
		switch {
		case err == nil:
			good = append(good, part...)
			return nil
		case !errors.Is(err, errCompilerCrashed):
			return err
		case len(part) == 1:
			faults = append(faults, api.ImportError{File: part[0].Name, Line: 1, Text: fmt.Sprintf("left out: %v", err)})
			return nil
		}
		if err := search(part[:len(part)/2]); err != nil {
			return err
		}
		return search(part[len(part)/2:])
	}
	return good, faults, search(sources)
}

var errCompilerCrashed = errors.New("the rule compiler crashed")

// run starts one compiler process.
func (c *compiler) run(ctx context.Context, in CompileRequest, dir string) (*CompileReport, error) {
	request, err := json.Marshal(in)
	if err != nil {
		return nil, fmt.Errorf("describing the sources: %w", err)
	}
	out := &limited{}
	stderr := &tail{}
	cmd := &exec.Cmd{
		Args:   append([]string{c.spawner.path}, c.args...),
		Env:    []string{"GOTRACEBACK=single", "MALLOC_ARENA_MAX=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0"},
		Stdin:  bytes.NewReader(request),
		Stdout: out, Stderr: stderr, WaitDelay: time.Second,
	}
	for _, name := range CompiledFiles {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR|os.O_CREATE|os.O_TRUNC|syscall.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("creating compiled rules: %w", err)
		}
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	if err := c.spawner.spawn(ctx, cmd); err != nil {
		return nil, err
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Kill() })
	err = cmd.Wait()
	stop()
	switch {
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case err != nil && cmd.ProcessState.ExitCode() != 1:
		return nil, fmt.Errorf("%w: %w: %s", errCompilerCrashed, err, stderr)
	case err != nil:
		return nil, fmt.Errorf("running the rule compiler: %w: %s", err, stderr)
	case out.full:
		return nil, fmt.Errorf("running the rule compiler: its report exceeds %d bytes", maxReport)
	}
	report := &CompileReport{}
	if err := json.Unmarshal(out.Bytes(), report); err != nil {
		return nil, fmt.Errorf("reading the rule compiler's report: %w", err)
	}
	if report.Failure != "" {
		return nil, errors.New(report.Failure)
	}
	report.Files = map[string]string{}
	for i, f := range cmd.ExtraFiles {
		if report.Files[CompiledFiles[i]], err = seal(f); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// seal makes a file durable and returns its digest.
func seal(f *os.File) (string, error) {
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("writing %s: %w", f.Name(), err)
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<40)); err != nil {
		return "", fmt.Errorf("hashing %s: %w", f.Name(), err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// limited buffers up to maxReport bytes of a process that is not trusted.
type limited struct {
	bytes.Buffer
	full bool
}

// Write implements io.Writer.
func (l *limited) Write(b []byte) (int, error) {
	if l.Len()+len(b) > maxReport {
		l.full = true
		return len(b), nil
	}
	return l.Buffer.Write(b)
}
