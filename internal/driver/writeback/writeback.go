// Package writeback reports inodes whose content changed without a write: a
// store to a shared mapping dirties a page and raises no fanotify event. An
// eBPF program on the tracepoint writeback_dirty_folio compares each dirtied
// inode with the watched ones (bpf/writeback.c).
package writeback

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/ringbuf"
	"github.com/cilium/ebpf/rlimit"
)

//go:generate go tool bpf2go -go-package writeback -output-stem program -tags linux -target bpfel,bpfeb -type inode_key -type loss program ../../../bpf/writeback.c -- -I../../../bpf -O2 -g -Wall -Werror -mcpu=v3

// poll is how often the loss counter is read: a full ring buffer wakes nobody.
const poll = 50 * time.Millisecond

// Config of a Watcher.
type Config struct {
	// Inodes bounds the watched inodes; Watch fails beyond it. Default 262144.
	Inodes int
	// Changed is called for each watched inode that was dirtied; its watch has
	// ended. Required.
	Changed func(dev uint32, ino uint64)
	// Lost is called when reports were lost: any watched inode may have
	// changed. Required.
	Lost   func()
	Logger *slog.Logger
}

// Watcher is the loaded program.
type Watcher struct {
	cfg     Config
	objects programObjects
	link    link.Link
	reader  *ringbuf.Reader
	lost    uint64
}

// UnsupportedError says that this kernel does not let the program run.
type UnsupportedError struct{ Reason error }

// Error implements error.
func (e *UnsupportedError) Error() string {
	return "watching writeback is not supported: " + e.Reason.Error()
}

// Unwrap returns the reason.
func (e *UnsupportedError) Unwrap() error { return e.Reason }

// New loads and attaches the program. It needs CAP_BPF and CAP_PERFMON. An
// *UnsupportedError means that the kernel does not offer it. The caller closes
// the watcher.
func New(cfg Config) (*Watcher, error) {
	if cfg.Changed == nil || cfg.Lost == nil {
		return nil, errors.New("creating the writeback watcher: Changed and Lost are required")
	}
	if cfg.Inodes <= 0 {
		cfg.Inodes = 1 << 18
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	// Kernels before 5.11 count maps against RLIMIT_MEMLOCK; where raising it
	// is refused, loading says so.
	memlock := rlimit.RemoveMemlock()
	spec, err := loadProgram()
	if err != nil {
		return nil, fmt.Errorf("reading the writeback program: %w", err)
	}
	spec.Maps["watched"].MaxEntries = uint32(cfg.Inodes)
	w := &Watcher{cfg: cfg}
	if err := spec.LoadAndAssign(&w.objects, nil); err != nil {
		return nil, &UnsupportedError{reason(err, memlock)}
	}
	if w.link, err = link.AttachTracing(link.TracingOptions{Program: w.objects.WritebackDirtyFolio}); err != nil {
		return nil, errors.Join(&UnsupportedError{reason(err, nil)}, w.Close())
	}
	if w.reader, err = ringbuf.NewReader(w.objects.Dirtied); err != nil {
		return nil, errors.Join(fmt.Errorf("opening the ring buffer: %w", err), w.Close())
	}
	return w, nil
}

// reason replaces the loader's guess about memory limits, which hides that a
// locked-down kernel refuses the program type before it verifies anything.
func reason(err, memlock error) error {
	var verifier *ebpf.VerifierError
	switch {
	case errors.As(err, &verifier):
		return err
	case errors.Is(err, btf.ErrNotFound), errors.Is(err, os.ErrNotExist):
		return fmt.Errorf("the kernel lacks BTF or the tracepoint writeback_dirty_folio (Linux 5.18): %w", err)
	case errors.Is(err, os.ErrPermission) && memlock != nil:
		return fmt.Errorf("the memory lock limit could not be raised: %w", memlock)
	case errors.Is(err, os.ErrPermission):
		return errors.New("the kernel refuses to load tracing programs (missing CAP_BPF and CAP_PERFMON, or lockdown)")
	}
	return err
}

// Watch asks for a report when the inode is dirtied. dev is s_dev in the
// kernel's encoding, major<<20 | minor. Pages that are dirty already report
// nothing: write them back first.
func (w *Watcher) Watch(dev uint32, ino uint64) error {
	key := programInodeKey{Ino: ino, Dev: dev}
	err := w.objects.Watched.Update(&key, uint8(1), ebpf.UpdateNoExist)
	if errors.Is(err, ebpf.ErrKeyExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("watching inode %d of device %#x: %w", ino, dev, err)
	}
	return nil
}

// Unwatch ends a watch; it is no error if there is none.
func (w *Watcher) Unwatch(dev uint32, ino uint64) error {
	key := programInodeKey{Ino: ino, Dev: dev}
	err := w.objects.Watched.Delete(&key)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unwatching inode %d of device %#x: %w", ino, dev, err)
	}
	return nil
}

// Run reports until ctx ends; it notices the end within 50 ms.
func (w *Watcher) Run(ctx context.Context) error {
	var (
		rec  ringbuf.Record
		next time.Time
	)
	for ctx.Err() == nil {
		if now := time.Now(); now.After(next) {
			if err := w.checkLoss(); err != nil {
				return err
			}
			next = now.Add(poll)
			w.reader.SetDeadline(next)
		}
		switch err := w.reader.ReadInto(&rec); {
		case err == nil:
			if key, ok := decode(rec.RawSample); ok {
				w.cfg.Changed(key.Dev, key.Ino)
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
		default:
			return fmt.Errorf("reading writeback reports: %w", err)
		}
	}
	return nil
}

// checkLoss compares the loss counter of all processors with the last one.
func (w *Watcher) checkLoss() error {
	var per []programLoss
	if err := w.objects.Losses.Lookup(uint32(0), &per); err != nil {
		return fmt.Errorf("reading the loss counter: %w", err)
	}
	var sum uint64
	for _, l := range per {
		sum += l.Events
	}
	if sum != w.lost {
		w.cfg.Logger.Warn("writeback reports lost", slog.Any("count", sum-w.lost))
		w.lost = sum
		w.cfg.Lost()
	}
	return nil
}

// Close detaches and unloads the program. Run must have returned.
func (w *Watcher) Close() error {
	var errs []error
	if w.reader != nil {
		errs = append(errs, w.reader.Close())
	}
	if w.link != nil {
		errs = append(errs, w.link.Close())
	}
	errs = append(errs, w.objects.Close())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("closing the writeback watcher: %w", err)
	}
	return nil
}
