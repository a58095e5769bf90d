package fanotify

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

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/task"
	"github.com/lazaret/lazaret/internal/threat"
)

// Handler decides about accesses. The node implements it. Calls come from many
// goroutines at once. A handler never opens the event's file or path again:
// that open would wait for the handler itself; it reads with ReadAt.
type Handler interface {
	// Access decides a waiting open or exec before ctx ends; after that the
	// driver has answered by the fail mode and the result is not used.
	Access(ctx context.Context, ev *event.File) Answer
	// Written is told that a file was closed after writing. Nobody waits.
	Written(ctx context.Context, ev *event.File)
	// Overflow is told that events were lost: files may have been written on
	// the protected file systems without a call of Written.
	Overflow(ctx context.Context)
}

// Answer is the decision about an access.
type Answer struct {
	Allow bool
	// Remember asks the kernel not to report further opens until the content
	// changes. Only for content that is clean for every workload.
	Remember bool
}

// Watcher tells the driver (through Driver.Changed) when an inode's pages are
// dirtied without a write, by a store to a shared mapping. Inodes are named by
// the kernel's device number (major<<20 | minor) and inode number.
type Watcher interface {
	Watch(dev uint32, ino uint64) error
	Unwatch(dev uint32, ino uint64) error
}

// Config of a Driver. Group, Handler and Conditions are required.
type Config struct {
	Group   *Group  // stays the caller's
	Handler Handler // the decisions
	// Own reports processes whose accesses are always allowed: the service's
	// own and its workers'. It runs for every event and must neither block nor
	// open files. This process is always its own.
	Own func(pid int) bool
	// Clean reports content that is known to be clean for every workload and
	// may be opened without asking the handler. It runs for every event and
	// must neither block nor open files. Only verdicts of stable files
	// (event.File.Unstable is false) may be kept for it. May be nil.
	Clean func(event.FileKey) bool
	// Deadline bounds the wait of an opener. Default 5 s.
	Deadline time.Duration
	// FailClosed denies instead of allows when there is no decision.
	FailClosed bool
	// Inflight bounds the accesses that are read and not yet decided; each costs
	// two descriptors. Default: an eighth of RLIMIT_NOFILE, at most 4096.
	Inflight int
	// Handlers bounds the calls of Access at once; the other accesses in flight
	// wait for their turn. The difference lets the reader go on answering the
	// files that handlers themselves open. Default: half of Inflight.
	Handlers int
	// Writes bounds the queue of written files; each costs two descriptors.
	// Default: half of Inflight.
	Writes int
	// Settle is the age that a file's last change must have before the kernel
	// is asked to remember the file; younger files change often, and a coarse
	// clock could hide a change. Default 1 s.
	Settle time.Duration
	// Remembered bounds the files with a kernel mark. Default 131072.
	Remembered int
	// Overlay is what Probe found. Only with Overlay may overlays be protected:
	// where the backing file system reports their opens too, reading such an
	// event opens the backing file, and the reader would wait for itself.
	Overlay OverlayMode
	// Watcher catches stores to shared mappings; nil if the kernel offers none:
	// then files are remembered all the same and a condition says so.
	Watcher    Watcher
	Conditions *condition.Set
	Logger     *slog.Logger
}

func (c Config) withDefaults() Config {
	if c.Deadline <= 0 {
		c.Deadline = 5 * time.Second
	}
	if c.Inflight <= 0 {
		c.Inflight = 1024
		var r unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &r) == nil {
			c.Inflight = int(min(r.Cur/8, 4096))
		}
		c.Inflight = max(c.Inflight, 8)
	}
	if c.Handlers <= 0 {
		c.Handlers = max(c.Inflight/2, 1)
	}
	if c.Writes <= 0 {
		c.Writes = max(c.Inflight/2, 8)
	}
	if c.Settle == 0 {
		c.Settle = time.Second
	}
	if c.Remembered <= 0 {
		c.Remembered = 1 << 17
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return c
}

// Driver answers the events of one group.
type Driver struct {
	cfg    Config
	self   int
	closed atomic.Bool   // fail closed
	wake   int           // eventfd that interrupts the reader
	places chan struct{} // taken by accesses in flight
	turns  chan struct{} // taken by running handlers
	busy   sync.WaitGroup
	beat   atomic.Int64 // unix nanoseconds of the reader's last turn
	handed bool         // the reader has started decisions; reader only
	stuck  bool         // no place came free for a long time; reader only

	count  counters
	writes writeQueue
	lost   chan struct{} // one pending call of Overflow
	marks  *marks
	fs     superblocks
}

// New returns a driver that does nothing before Run.
func New(cfg Config) (*Driver, error) {
	if cfg.Group == nil || cfg.Handler == nil || cfg.Conditions == nil {
		return nil, errors.New("creating the fanotify driver: group, handler and conditions are required")
	}
	cfg = cfg.withDefaults()
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("creating the fanotify driver: %w", err)
	}
	d := &Driver{
		cfg:    cfg,
		self:   os.Getpid(),
		wake:   wake,
		places: make(chan struct{}, cfg.Inflight),
		turns:  make(chan struct{}, cfg.Handlers),
		lost:   make(chan struct{}, 1),
	}
	d.closed.Store(cfg.FailClosed)
	d.writes.init(cfg.Writes)
	d.marks = newMarks(d)
	runtime.AddCleanup(d, func(fd int) { _ = unix.Close(fd) }, wake)
	return d, nil
}

// SetFailClosed changes what happens to accesses without a decision.
func (d *Driver) SetFailClosed(closed bool) { d.closed.Store(closed) }

// Beat returns when the reader last took a turn; it does so at least every
// second unless it waits for a place, at most an eighth of a deadline.
func (d *Driver) Beat() time.Time { return time.Unix(0, d.beat.Load()) }

// Run answers events until ctx ends, then answers those it has read and
// returns nil. Events still in the kernel's queue are left there: they proceed
// when the last copy of the group closes, or are read by the next owner.
func (d *Driver) Run(ctx context.Context) error {
	if d.cfg.Watcher == nil {
		d.cfg.Conditions.Raise(threat.Condition{
			Code: ConditionMmapUnseen, Severity: threat.Medium,
			Text:   "Changes through shared memory mappings are not seen until the file is closed, because the eBPF writeback hook is missing.",
			Advice: "Use a kernel with BTF (CONFIG_DEBUG_INFO_BTF) that allows tp_btf programs, Linux 5.18 or newer.",
		})
	}
	err := task.Run(ctx, d.read, d.written, d.overflow, d.marks.run, d.report)
	d.marks.drain()
	d.writes.drain()
	return err
}

// overflow calls the handler outside the reader, one call at a time.
func (d *Driver) overflow(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-d.lost:
			d.guard(func() { d.cfg.Handler.Overflow(ctx) })
		}
	}
}

func (d *Driver) lose() {
	select {
	case d.lost <- struct{}{}:
	default: // one call is pending; it will see this loss too
	}
}

// guard runs f and turns a panic into a counter: a broken handler must not
// stop the answers to everybody else.
func (d *Driver) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			d.count.panics.Add(1)
			d.cfg.Logger.Error("handler panicked", slog.String("panic", fmt.Sprint(p)))
		}
	}()
	f()
}
