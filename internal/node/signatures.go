package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/worker"
	"github.com/lazaret/lazaret/internal/signature"
	"github.com/lazaret/lazaret/internal/threat"
)

// signatures keeps the node's bundle current: fetched and verified, compiled,
// tried, and swapped in without a gap.
type signatures struct {
	cfg      Config
	program  string
	client   *signature.Client
	store    *signature.Store
	pool     *worker.Pool
	active   atomic.Uint64
	wake     chan struct{}
	onChange func() // the epoch changed: what is remembered in the kernel is void
}

func newSignatures(cfg Config, program, dir string) (*signatures, error) {
	s := &signatures{cfg: cfg, program: program, wake: make(chan struct{}, 1), onChange: func() {}}
	var err error
	s.client, err = signature.NewClient(signature.ClientConfig{
		Dir: filepath.Join(dir, "tuf"), URL: "http://lazaret" + api.Prefix + "/signatures/tuf", HTTP: cfg.Client.HTTP(), Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	s.store, err = signature.OpenStore(filepath.Join(dir, "compiled"), cfg.Logger)
	return s, err
}

func (s *signatures) epoch() threat.Epoch { return threat.Epoch(s.active.Load()) }

// last returns the compiled bundle that was active before the restart, if it
// is intact.
func (s *signatures) last() (dir string, epoch threat.Epoch) {
	c, err := s.store.Active()
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			s.cfg.Logger.Warn("compiled signatures are not usable and are made anew", slog.Any("error", err))
		}
		s.none()
		return "", 0
	}
	s.active.Store(uint64(c.Epoch))
	return c.Dir, c.Epoch
}

func (s *signatures) none() {
	s.cfg.Conditions.Raise(threat.Condition{
		Code: "no_signatures", Severity: threat.Critical,
		Text:   "No signatures are active: nothing is detected and nothing is called clean.",
		Advice: "They are fetched from the manager at once; see the log if this stays.",
	})
}

// Check makes Run look for a newer bundle soon.
func (s *signatures) Check() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run updates the bundle when told so, now and then, and soon after a failure.
func (s *signatures) Run(ctx context.Context) error {
	for {
		wait := 10 * time.Minute
		if err := s.update(ctx); err != nil && ctx.Err() == nil {
			wait = 15 * time.Second
			if s.epoch() == 0 {
				wait = 500 * time.Millisecond // at the first start the manager may need a moment
			}
			if !errors.Is(err, signature.ErrUnpublished) {
				s.report(ctx, err)
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.wake:
		case <-time.After(wait):
		}
	}
}

func (s *signatures) report(ctx context.Context, err error) {
	s.cfg.Logger.WarnContext(ctx, "signatures were not updated", slog.Any("error", err))
	s.cfg.Conditions.Raise(threat.Condition{
		Code: "signatures_not_updated", Severity: threat.Medium,
		Text:   fmt.Sprintf("The newest signatures could not be activated; bundle %d stays in force: %v", s.epoch(), err),
		Advice: "Check that the manager is reachable and look at lazaret signature list; a bundle that fails its self-test can be rolled back.",
	})
}

// update fetches, compiles and activates the newest bundle.
func (s *signatures) update(ctx context.Context) error {
	if _, _, err := s.client.Update(ctx); err != nil {
		return err
	}
	b, err := s.client.Bundle()
	if err != nil {
		return err
	}
	if b.Manifest.Epoch == s.epoch() {
		s.cfg.Conditions.Clear("signatures_not_updated")
		return nil
	}
	compiled, refused, err := s.store.Compile(ctx, b, signature.Sandboxed{Program: s.program})
	if err != nil {
		return err
	}
	if len(refused) > 0 {
		s.cfg.Logger.WarnContext(ctx, "rules were left out", slog.Int("count", len(refused)), slog.String("first", refused[0].Text))
	}
	if err := s.try(ctx, compiled); err != nil {
		return err
	}
	if err := s.pool.Swap(ctx, compiled.Dir, compiled.Epoch); err != nil {
		return err
	}
	s.active.Store(uint64(compiled.Epoch))
	s.onChange()
	if err := s.store.Activate(compiled); err != nil {
		return err
	}
	s.cfg.Conditions.Clear("no_signatures")
	s.cfg.Conditions.Clear("signatures_not_updated")
	s.cfg.Logger.InfoContext(ctx, "signatures activated", slog.Uint64("epoch", uint64(compiled.Epoch)),
		slog.Int("rules", compiled.Rules), slog.Int64("hashes", compiled.Hashes))
	return nil
}

// try runs the self-test with a worker of its own before the bundle protects
// anything: what a host cannot run without is not the same everywhere.
func (s *signatures) try(ctx context.Context, c *signature.Compiled) error {
	pool, err := worker.New(worker.Config{
		Program: s.program, Bundle: c.Dir, Epoch: c.Epoch, Processes: 1, MemoryLimit: s.cfg.Engine.Memory, Logger: s.cfg.Logger,
	})
	if err != nil {
		return err
	}
	return errors.Join(signature.SelfTest(ctx, pool, signature.DefaultCorpus(s.cfg.Engine.KnownGood...)), pool.Close())
}
