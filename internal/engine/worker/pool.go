package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// ErrClosed is returned by a pool that was closed.
var ErrClosed = errors.New("the worker pool is closed")

// Config describes a pool.
type Config struct {
	Program string       // path of lazaret-engine
	Args    []string     // default: worker
	Bundle  string       // directory of compiled signatures; empty: none yet, every file is partial
	Epoch   threat.Epoch // of Bundle

	Processes   int           // default: number of CPUs
	MemoryLimit int64         // resident bytes of one worker, default 512 MiB
	UID, GID    int           // of workers started by root, default 65534
	Limits      engine.Limits // for fields that Inspect's limits leave zero
	Grace       time.Duration // between a file's time limit and SIGKILL, default 3 s
	Lazy        bool          // start a worker with its first file
	Logger      *slog.Logger  // default: discard
}

// Pool implements engine.Inspector with sandboxed processes. It is safe for
// concurrent use; Close it.
type Pool struct {
	config  Config
	log     *slog.Logger
	spawner *spawner
	slots   []*slot
	idle    chan *slot // those that nobody owns

	ctx    context.Context // ends with Close
	cancel context.CancelFunc
	wg     sync.WaitGroup
	close  sync.Once

	swap   sync.Mutex // one Swap at a time
	bundle atomic.Pointer[bundle]

	live                                   atomic.Int64 // processes that exist
	inspected, crashes, timeouts, restarts atomic.Uint64
	lastError                              atomic.Pointer[string]
}

// New starts a pool. Unless it is lazy, all workers are ready when New returns,
// and signatures that cannot be loaded are its error.
func New(c Config) (*Pool, error) {
	if c.Processes <= 0 {
		c.Processes = runtime.NumCPU()
	}
	if c.MemoryLimit <= 0 {
		c.MemoryLimit = 512 << 20
	}
	if c.Grace <= 0 {
		c.Grace = 3 * time.Second
	}
	if len(c.Args) == 0 {
		c.Args = []string{"worker"}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	c.Limits = c.Limits.WithDefaults()
	s, err := newSpawner(c.Program, c.UID, c.GID)
	if err != nil {
		return nil, err
	}
	p := &Pool{config: c, log: c.Logger, spawner: s, idle: make(chan *slot, c.Processes)}
	p.ctx, p.cancel = context.WithCancel(context.Background())
	for range c.Processes {
		p.slots = append(p.slots, &slot{pool: p, buffer: make([]byte, maxMessage)})
	}
	err = p.startAll()
	for _, s := range p.slots {
		p.idle <- s
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	p.wg.Go(p.watchMemory)
	return p, nil
}

// startAll opens the configured bundle and starts the first workers.
func (p *Pool) startAll() error {
	if p.config.Bundle == "" {
		return nil
	}
	b, err := openBundle(p.config.Bundle, p.config.Epoch)
	if err != nil {
		return err
	}
	p.bundle.Store(b)
	if p.config.Lazy {
		return nil
	}
	for _, s := range p.slots {
		if s.process, err = p.start(p.ctx, b); err != nil {
			return fmt.Errorf("starting a worker: %w", err)
		}
		s.publish()
	}
	return nil
}

// Inspect implements engine.Inspector. A descriptor that is writable is opened
// again for reading: it goes to a process that may have been taken over by what
// it reads.
func (p *Pool) Inspect(ctx context.Context, f *os.File, limits engine.Limits) (*engine.Result, error) {
	start := time.Now()
	f, done, err := readOnly(f)
	if err != nil {
		return nil, err
	}
	defer done()
	b := p.bundle.Load()
	if b == nil {
		return p.without(ctx, f, 0, threat.Partial, threat.ReasonNoSignatures, "no signatures are active", nil, start)
	}
	t := &task{ctx: ctx, file: f, limits: limits.Or(p.config.Limits)}
	for attempt := 1; ; attempt++ {
		o, err := p.try(t)
		if err != nil {
			return nil, err
		}
		switch o.kind {
		case finished:
			p.inspected.Add(1)
			if len(o.objects) == 0 {
				return p.without(ctx, f, o.epoch, threat.Error, threat.ReasonUnreadable, o.text, nil, start)
			}
			if o.text != "" {
				mark(&o.objects[0], threat.Partial, threat.ReasonUnreadable, o.text)
			}
			return &engine.Result{Objects: o.objects, Epoch: o.epoch, Elapsed: o.elapsed}, nil
		case late:
			p.timeouts.Add(1)
			return p.without(ctx, f, o.epoch, threat.Partial, threat.ReasonEngineTimeout, o.text, o.objects, start)
		case unavailable:
			return p.without(ctx, f, b.epoch, threat.Error, threat.ReasonEngineUnavailable, o.text, nil, start)
		case crashed:
			p.crashes.Add(1)
			if attempt < 2 {
				// Perhaps it was not this file that damaged the worker: once
				// more in one that has seen nothing else.
				t.alone = true
				continue
			}
			return p.without(ctx, f, o.epoch, threat.Suspicious, threat.ReasonEngineCrashed, o.text, o.objects, start)
		}
	}
}

// try runs the task in the next idle worker.
func (p *Pool) try(t *task) (outcome, error) {
	var s *slot
	select {
	case s = <-p.idle:
	case <-t.ctx.Done():
		return outcome{}, t.ctx.Err()
	case <-p.ctx.Done():
		return outcome{}, ErrClosed
	}
	s.busy.Store(true)
	o := s.serve(t)
	if !o.pending {
		p.release(s)
	}
	if o.kind == cancelled {
		return outcome{}, t.reason(p)
	}
	return o.outcome, nil
}

// reason says why a task was cancelled.
func (t *task) reason(p *Pool) error {
	switch {
	case p.ctx.Err() != nil:
		return ErrClosed
	case t.ctx.Err() != nil:
		return t.ctx.Err()
	}
	return fmt.Errorf("inspecting %s: %w", t.file.Name(), os.ErrClosed)
}

// readOnly returns f, or another descriptor of its file that cannot write; done
// closes that one.
func readOnly(f *os.File) (_ *os.File, done func(), err error) {
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, nil, fmt.Errorf("using the descriptor of %s: %w", f.Name(), err)
	}
	var again *os.File
	var failed error
	if err := raw.Control(func(fd uintptr) {
		var flags int
		if flags, failed = unix.FcntlInt(fd, unix.F_GETFL, 0); failed == nil && flags&unix.O_ACCMODE != unix.O_RDONLY {
			again, failed = os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", fd), os.O_RDONLY|unix.O_NONBLOCK, 0)
		}
	}); err != nil {
		failed = err
	}
	if failed != nil {
		return nil, nil, fmt.Errorf("using the descriptor of %s: %w", f.Name(), failed)
	}
	if again == nil {
		return f, func() {}, nil
	}
	return again, func() { _ = again.Close() }, nil
}

// Close kills all workers and waits until they are gone. Inspections under way
// return ErrClosed.
func (p *Pool) Close() error {
	p.close.Do(func() {
		p.cancel()
		p.wg.Wait()
		for range p.slots {
			s := <-p.idle // and never back: nobody can use it any more
			s.adopt()
			s.drop()
		}
		p.spawner.close()
	})
	if b := p.bundle.Load(); b != nil {
		b.close()
	}
	return nil
}
