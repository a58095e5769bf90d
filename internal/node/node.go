// Package node is the node service: it protects one host. It wires drivers,
// scan service, policies and responses together, keeps findings until the
// manager has them, and carries out what the manager asks.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/config"
	"github.com/lazaret/lazaret/internal/driver/fanotify"
	"github.com/lazaret/lazaret/internal/engine/worker"
	"github.com/lazaret/lazaret/internal/node/casework"
	"github.com/lazaret/lazaret/internal/node/command"
	"github.com/lazaret/lazaret/internal/node/guard"
	"github.com/lazaret/lazaret/internal/node/link"
	"github.com/lazaret/lazaret/internal/node/local"
	"github.com/lazaret/lazaret/internal/node/spool"
	"github.com/lazaret/lazaret/internal/response"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/scan/budget"
	"github.com/lazaret/lazaret/internal/scan/job"
	"github.com/lazaret/lazaret/internal/scan/target"
	"github.com/lazaret/lazaret/internal/task"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload"
)

// Config of a Node. All fields but Group and Started are required.
type Config struct {
	config.Config
	Version string
	// Client speaks to the manager.
	Client *api.Client
	// Group receives file events; nil: no on-access protection, and a condition
	// says so. It stays the caller's.
	Group *fanotify.Group
	// Started is called right before the driver takes the group over.
	Started    func(ctx context.Context) error
	Conditions *condition.Set
	Logger     *slog.Logger
}

// Node is one host's protection. Close it after Run returned.
type Node struct {
	cfg        Config
	dir        string
	pool       *worker.Pool
	signatures *signatures
	scans      *scan.Service
	scanner    *scan.Scanner
	jobs       *job.Jobs
	who        *workload.Resolver
	spool      *spool.Spool
	vault      *response.Vault
	responder  *response.Responder
	desk       *casework.Desk
	guard      *guard.Guard
	protection *protection
	link       *link.Link
	local      *local.Server
	closers    []io.Closer
}

// New opens the node's state and prepares its parts; nothing is watched before
// Run.
func New(ctx context.Context, c Config) (n *Node, err error) {
	n = &Node{cfg: c, dir: filepath.Join(c.StateDir, "node")}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("starting node: %w", err), n.Close())
		}
	}()
	if err := os.MkdirAll(n.dir, 0o700); err != nil {
		return nil, err
	}
	for _, step := range []func(context.Context) error{
		n.openEngine, n.openWorkloads, n.openScans, n.openResponse, n.openGuard, n.openLink,
	} {
		if err := step(ctx); err != nil {
			return n, err
		}
	}
	return n, nil
}

// openEngine starts the workers with the bundle that was active last, so that
// protection does not wait for the manager.
func (n *Node) openEngine(ctx context.Context) error {
	program, err := n.cfg.EngineProgram()
	if err != nil {
		return err
	}
	if n.signatures, err = newSignatures(n.cfg, program, filepath.Join(n.dir, "signatures")); err != nil {
		return err
	}
	dir, epoch := n.signatures.last()
	n.pool, err = worker.New(worker.Config{
		Program: program, Bundle: dir, Epoch: epoch, Processes: n.cfg.EngineWorkers() + reserved, MemoryLimit: n.cfg.Engine.Memory,
		Limits: n.cfg.Engine.Limits, Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.pool)
	n.signatures.pool = n.pool
	return nil
}

// reserved workers are only for accesses that somebody waits for. They come on
// top, so that scans use all cores when nobody waits.
const reserved = 1

func (n *Node) openScans(ctx context.Context) (err error) {
	n.scans, err = scan.New(scan.Config{
		Dir: n.dir, Inspector: n.pool, Epoch: n.signatures.epoch, Workers: n.cfg.EngineWorkers() + reserved, Reserve: reserved,
		Budget:     budget.New(budget.Config{Conditions: n.cfg.Conditions}),
		Conditions: n.cfg.Conditions, Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	// Closed before the pool it asks.
	n.closers = append(n.closers, n.scans)
	n.scanner = &scan.Scanner{Service: n.scans, Targets: &target.Resolver{
		Containers: containers{n.who}, Images: target.ImageFiles{TempDir: n.dir}, Temp: n.dir, Host: workload.HostID,
	}}
	n.jobs, err = job.Open(ctx, job.Config{
		Dir: n.dir, Runner: n.scanner, Node: n.cfg.Node,
		Changed: func(s api.Scan) {
			if err := n.spool.AddScan(context.WithoutCancel(ctx), s); err != nil {
				n.cfg.Logger.ErrorContext(ctx, "scan progress was not queued", slog.Any("error", err))
			}
		},
		Found:      func(ctx context.Context, _ string, h scan.Hit) error { return n.guard.Hit(ctx, h) },
		Conditions: n.cfg.Conditions, Logger: n.cfg.Logger,
	})
	if err == nil {
		n.closers = append(n.closers, n.jobs)
	}
	return err
}

func (n *Node) openResponse(ctx context.Context) (err error) {
	if n.spool, err = spool.Open(ctx, n.dir); err != nil {
		return err
	}
	n.closers = append(n.closers, n.spool)
	n.vault, err = response.OpenVault(ctx, response.VaultConfig{
		Dir: n.dir, Node: n.cfg.Node, Retention: n.cfg.Retention.Quarantine, Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	n.closers = append(n.closers, n.vault)
	n.responder, err = response.New(response.Config{
		Vault: n.vault, Killer: &response.Killer{Protected: child}, Governor: response.NewGovernor(spread{n.scans}, nil),
		Containers: containers{n.who}, Rescan: n.rescan, Logger: n.cfg.Logger,
	})
	if err != nil {
		return err
	}
	n.desk = casework.New(casework.Config{
		Records: n.spool, Responder: n.responder, Items: n.vault, Conditions: n.cfg.Conditions, Logger: n.cfg.Logger,
	})
	recovered, err := n.vault.Recover(ctx)
	if err != nil {
		n.cfg.Logger.ErrorContext(ctx, "quarantine was not recovered completely", slog.Any("error", err))
		n.cfg.Conditions.Raise(threat.Condition{
			Code: "quarantine_recovery", Severity: threat.High,
			Text:   "What a crash interrupted could not be brought to an end: " + err.Error(),
			Advice: "Nothing is lost. Correct the cause (disk full, mount missing) and restart.",
		})
	}
	if err := n.desk.Recovered(ctx, recovered); err != nil {
		return err
	}
	left, err := n.spool.Interrupted(ctx, casework.Interrupted)
	if left > 0 {
		n.cfg.Logger.WarnContext(ctx, "findings wait for a person: the service stopped before it could act on them", slog.Int("count", left))
	}
	return err
}

// rescan inspects a file before it is restored.
func (n *Node) rescan(ctx context.Context, f *os.File) (threat.Verdict, error) {
	r, err := n.scans.Inspect(ctx, scan.Request{File: f, Priority: scan.OnDemand, Volatile: true})
	return r.Verdict, err
}

func (n *Node) openGuard(context.Context) (err error) {
	n.guard = guard.New(guard.Config{
		Node: n.cfg.Node, Scans: n.scans, Who: n.who, Cases: n.desk, Conditions: n.cfg.Conditions, Logger: n.cfg.Logger,
	})
	n.protection, err = newProtection(n)
	return err
}

func (n *Node) openLink(context.Context) error {
	n.link = link.New(link.Config{
		Client: n.cfg.Client, Node: n.cfg.Node, Spool: n.spool, Report: n.report, Configure: n.configure,
		Conditions: n.cfg.Conditions, Logger: n.cfg.Logger,
		Commands: command.New(command.Config{
			Node: n.cfg.Node, Client: n.cfg.Client, Results: n.spool, Decider: n.desk, Restorer: n.responder,
			Vault: n.vault, Scans: n.jobs, Allowed: n.guard.Allowed, Refresh: n.refresh, Logger: n.cfg.Logger,
		}),
	})
	n.local = local.New(local.Config{
		Socket: n.cfg.NodeSocket(), Scanner: n.scanner, Found: n.guard.Hit, Logger: n.cfg.Logger,
	})
	return nil
}

// Run protects the host until ctx ends.
func (n *Node) Run(ctx context.Context) error {
	n.restoreConfig(ctx)
	return task.Run(ctx,
		n.signatures.Run, n.scans.Run, n.jobs.Run, n.who.Run, n.desk.Run, n.link.Run, n.local.Run,
		n.protection.Run, n.retain,
	)
}

// Healthy reports whether the node still answers events; a supervisor replaces
// one that does not.
func (n *Node) Healthy() bool { return n.protection.healthy() }

// Close closes what New opened, in reverse order.
func (n *Node) Close() error {
	var errs []error
	for i := len(n.closers) - 1; i >= 0; i-- {
		errs = append(errs, n.closers[i].Close())
	}
	n.closers = nil
	return errors.Join(errs...)
}
