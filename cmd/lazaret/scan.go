package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/config"
	"github.com/lazaret/lazaret/internal/engine/worker"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/scan/target"
	"github.com/lazaret/lazaret/internal/signature"
	"github.com/lazaret/lazaret/internal/threat"
)

// localScanner scans without a daemon: with the signatures that come with the
// program and a verdict cache of the user's own.
type localScanner struct{}

// cacheDir is where the user's cache and compiled signatures are.
func cacheDir() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("finding the cache directory: %w", err)
	}
	return filepath.Join(dir, "lazaret"), nil
}

// Scan implements cli.LocalScanner.
func (localScanner) Scan(ctx context.Context, c config.Config, r api.ScanRequest, sink func(api.ScanLine) error) (sum api.ScanSummary, err error) {
	dir, err := cacheDir()
	if err != nil {
		return sum, err
	}
	program, err := c.EngineProgram()
	if err != nil {
		return sum, err
	}
	logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	bundle, err := localBundle(ctx, dir, program, logger)
	if err != nil {
		return sum, err
	}
	workers := c.EngineWorkers()
	pool, err := worker.New(worker.Config{
		Program: program, Bundle: bundle.Dir, Epoch: bundle.Epoch, Processes: workers, Lazy: true,
		MemoryLimit: c.Engine.Memory, Limits: c.Engine.Limits, Logger: logger,
	})
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, pool.Close()) }()
	var conditions condition.Set
	service, err := scan.New(scan.Config{
		Dir: dir, Inspector: pool, Epoch: func() threat.Epoch { return bundle.Epoch }, Workers: workers,
		Conditions: &conditions, Logger: logger,
	})
	if err != nil {
		return sum, err
	}
	defer func() { err = errors.Join(err, service.Close()) }()
	run, stop := context.WithCancel(ctx)
	written := make(chan error, 1)
	go func() { written <- service.Run(run) }()
	defer func() { stop(); <-written }()
	scanner := scan.Scanner{Service: service, Targets: &target.Resolver{Images: target.ImageFiles{}, Stdin: os.Stdin}}
	return scanner.Run(ctx, r, scan.Options{Limits: c.Engine.Limits, Progress: 200 * time.Millisecond}, func(l api.ScanLine) error {
		if l.Kind == api.LineSummary {
			return nil
		}
		return sink(l)
	})
}

// localBundle returns the compiled signatures of this program, made with the
// first scan and after updates.
func localBundle(ctx context.Context, dir, program string, logger *slog.Logger) (*signature.Compiled, error) {
	store, err := signature.OpenStore(filepath.Join(dir, "compiled"), logger)
	if err != nil {
		return nil, err
	}
	if c, err := store.Active(); err == nil && builtWith(dir) {
		return c, nil
	}
	unlock, err := lockCache(ctx, dir)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if c, err := store.Active(); err == nil && builtWith(dir) {
		return c, nil // another scan made them meanwhile
	}
	repository, err := signature.OpenRepository(signature.RepositoryConfig{Dir: filepath.Join(dir, "signatures"), Logger: logger})
	if err != nil {
		return nil, err
	}
	defer repository.Close()
	report, err := newImporter(repository, program, dir, nil, logger).Builtin(ctx)
	if err != nil {
		return nil, err
	}
	if report.SelfTest != "" && report.Bundle == nil {
		return nil, fmt.Errorf("the built-in signatures did not pass their self-test: %s", report.SelfTest)
	}
	b, err := repository.Bundle()
	if err != nil {
		return nil, err
	}
	c, _, err := store.Compile(ctx, b, signature.Sandboxed{Program: program})
	if err != nil {
		return nil, err
	}
	if err := store.Activate(c); err != nil {
		return nil, err
	}
	return c, markBuilt(dir)
}

// lockWait is how long a scan waits for another one that compiles the
// signatures, which takes a few seconds.
const lockWait = 2 * time.Minute

// lockCache lets one process at a time make the compiled signatures; the lock
// ends with its process.
func lockCache(ctx context.Context, dir string) (unlock func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("locking the cache: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("locking the cache: %w", err)
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lockWait, fmt.Errorf("another scan has held %s for %s", f.Name(), lockWait))
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // nothing was written
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.EINTR) {
			return nil, errors.Join(fmt.Errorf("locking the cache: %w", err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("locking the cache: %w", context.Cause(ctx)), f.Close())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// builtWith reports whether the compiled signatures are those of this very
// program file.
func builtWith(dir string) bool {
	own, err := identity()
	if err != nil {
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, "compiled-by"))
	return err == nil && string(b) == own
}

func markBuilt(dir string) error {
	own, err := identity()
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "compiled-by"), []byte(own), 0o600); err != nil {
		return fmt.Errorf("storing compiled signatures: %w", err)
	}
	return nil
}

func identity() (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding this program: %w", err)
	}
	info, err := os.Stat(self)
	if err != nil {
		return "", fmt.Errorf("finding this program: %w", err)
	}
	return fmt.Sprintf("%s %d %d", version, info.Size(), info.ModTime().UnixNano()), nil
}
