package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/config"
	"github.com/lazaret/lazaret/internal/engine/worker"
	"github.com/lazaret/lazaret/internal/manager"
	"github.com/lazaret/lazaret/internal/node"
	"github.com/lazaret/lazaret/internal/node/supervisor"
	"github.com/lazaret/lazaret/internal/signature"
	"github.com/lazaret/lazaret/internal/task"
	"github.com/lazaret/lazaret/internal/threat"
)

// service is manager and node in one process. They talk over the manager's
// socket only.
func service(ctx context.Context, c config.Config) (err error) {
	logger := newLogger(c)
	child, err := supervisor.Attach()
	if err != nil {
		return err
	}
	defer child.Close()
	if err := child.SetMode(mode(c)); err != nil {
		return err
	}
	for _, dir := range []string{c.StateDir, c.RunDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making directories: %w", err)
		}
	}
	if err := os.Chmod(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("making directories: %w", err)
	}
	// Manager and node know only their own conditions; the node reports its.
	var managers, nodes condition.Set
	m, closeManager, err := openManager(c, &managers, logger)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, closeManager()) }()
	client, err := api.NewClient(api.ClientConfig{Socket: c.ManagerSocket(), UserAgent: "lazaret-node/" + version})
	if err != nil {
		return err
	}
	defer client.Close()

	var running atomic.Pointer[node.Node]
	healthy := func() bool {
		n := running.Load()
		return n == nil || n.Healthy()
	}
	return task.Run(ctx,
		func(ctx context.Context) error { return child.Run(ctx, healthy) },
		m.Run,
		func(ctx context.Context) error { return runNode(ctx, c, child, client, &nodes, logger, &running) },
	)
}

// runNode opens and runs the node.
func runNode(ctx context.Context, c config.Config, child *supervisor.Child, client *api.Client, conditions *condition.Set, logger *slog.Logger, running *atomic.Pointer[node.Node]) (err error) {
	nc := node.Config{
		Config: c, Version: version, Client: client, Group: child.Group(), Conditions: conditions, Logger: logger,
		Started: func(ctx context.Context) error {
			gap, err := child.Ready(ctx)
			if err != nil {
				return err
			}
			reportGap(ctx, gap, conditions, logger)
			return nil
		},
	}
	n, err := node.New(ctx, nc)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.Close()) }()
	running.Store(n)
	return n.Run(ctx)
}

// reportGap says what happened while no service was there.
func reportGap(ctx context.Context, g supervisor.Gap, conditions *condition.Set, logger *slog.Logger) {
	if g == (supervisor.Gap{}) {
		return
	}
	logger.WarnContext(ctx, "accesses were answered without inspection", slog.Uint64("allowed", g.Allowed), slog.Uint64("denied", g.Denied), slog.Uint64("writes", g.Writes))
	conditions.Raise(threat.Condition{
		Code: "accesses_not_inspected", Severity: threat.Medium,
		Text:   fmt.Sprintf("While the service was not running, %d accesses were allowed and %d denied without inspection, and %d files were written.", g.Allowed, g.Denied, g.Writes),
		Advice: "Files are inspected when they are opened next. Scan the protected file systems to find what lies there, and look at the log for why the service ended.",
	})
}

// openManager opens the manager with its signature repository.
func openManager(c config.Config, conditions *condition.Set, logger *slog.Logger) (*runningManager, func() error, error) {
	program, err := c.EngineProgram()
	if err != nil {
		return nil, nil, err
	}
	dir := filepath.Join(c.StateDir, "manager")
	repository, err := signature.OpenRepository(signature.RepositoryConfig{
		Dir: filepath.Join(dir, "signatures"), Logger: logger, Conditions: conditions,
	})
	if err != nil {
		return nil, nil, err
	}
	imports := newImporter(repository, program, dir, c.Engine.KnownGood, logger)
	listen := c.Listen
	if listen == "off" {
		listen = ""
	}
	m, err := manager.New(manager.Config{
		Dir: dir, Socket: c.ManagerSocket(), Listen: listen, TLSCert: c.TLS.Cert, TLSKey: c.TLS.Key,
		Repository: repository, Importer: imports, Logger: logger, Conditions: conditions, Version: version,
	})
	if err != nil {
		return nil, nil, errors.Join(err, repository.Close())
	}
	return &runningManager{m, repository, imports, logger}, func() error { return errors.Join(m.Close(), repository.Close()) }, nil
}

type runningManager struct {
	*manager.Manager
	repository *signature.Repository
	imports    *importer
	logger     *slog.Logger
}

// Run serves, and publishes the signatures that came with this program.
func (m *runningManager) Run(ctx context.Context) error {
	return task.Run(ctx, m.Manager.Run, m.repository.Run, func(ctx context.Context) error {
		report, err := m.imports.Builtin(ctx)
		if err != nil {
			return err
		}
		if report.Bundle != nil {
			if err := m.AfterPublish(ctx, *report.Bundle); err != nil {
				return err
			}
			m.logger.InfoContext(ctx, "built-in signatures published", slog.Uint64("epoch", uint64(report.Bundle.Epoch)), slog.Int("rules", report.Rules))
		}
		return m.firstStart(ctx)
	})
}

// firstStart prints the link to create the first user.
func (m *runningManager) firstStart(ctx context.Context) error {
	l, err := m.FirstSetup(ctx)
	if err != nil || l.URL == "" {
		return err
	}
	fmt.Fprintf(os.Stderr, "\nNobody has an account yet. Create the first user, once, with this link:\n  %s\nor with: lazaret setup %s --user NAME\n\n", l.URL, l.Token)
	return nil
}

// importer adapts signature.Importer to the manager.
type importer struct{ *signature.Importer }

func newImporter(r *signature.Repository, program, temp string, good []string, logger *slog.Logger) *importer {
	return &importer{signature.NewImporter(signature.ImporterConfig{
		Repository: r, Compiler: signature.Sandboxed{Program: program}, TempDir: temp, Corpus: signature.DefaultCorpus(good...),
		Inspect: func(_ context.Context, dir string, epoch threat.Epoch) (signature.Inspection, error) {
			return worker.New(worker.Config{Program: program, Bundle: dir, Epoch: epoch, Processes: 1, Logger: logger})
		},
	})}
}

// Import implements manager.Importer.
func (i *importer) Import(ctx context.Context, in manager.Import) (api.ImportReport, error) {
	report, err := i.Importer.Import(ctx, signature.Import{
		By: in.By, Comment: in.Comment, DryRun: in.DryRun, Files: signature.FromFS(os.DirFS(in.Dir), "."),
	})
	if err != nil {
		return api.ImportReport{}, err
	}
	return *report, nil
}
