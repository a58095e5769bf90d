// Package workload tells who is behind a process or a file: process id to
// container, pod, image or the host, and backing file to the path inside the
// container and the image layer. What runs comes from inventories, one per
// runtime, in sub-packages; a container no inventory knows (yet) still gets
// its identity from its control group.
package workload

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/task"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/cgroup"
	"github.com/lazaret/lazaret/internal/workload/mounts"
)

// Inventory knows the running containers of one runtime. Run keeps it up to
// date until ctx ends, connecting again for as long as the runtime is away;
// the other methods answer from memory.
type Inventory interface {
	Run(ctx context.Context) error
	Entries() []Entry
	Entry(container string) (Entry, bool)
}

// Finder is an inventory that can ask its runtime about a container it has not
// heard of: the first event of a container comes before the runtime's.
type Finder interface {
	Find(ctx context.Context, ref cgroup.Ref) (Entry, bool)
}

// Notifier is an inventory that reports changes; Table implements it.
type Notifier interface {
	OnChange(func(Change))
}

// Config of a Resolver.
type Config struct {
	// Node is the name of this node; it is set in every workload.
	Node string
	// Inventories in order of preference: where two know a container, the first
	// one's description is used.
	Inventories []Inventory
	// Log is used for inventories that end; nil means no log.
	Log *slog.Logger
	// Proc is the proc file system of the host's pid namespace; default "/proc".
	Proc string
	// FindTimeout bounds asking the runtimes about an unknown container;
	// default 150 ms. The asking goes on in the background.
	FindTimeout time.Duration
	// OnChange is told about containers that start and stop; may be nil. It must
	// not block.
	OnChange func(Change)
	// Roots are further directories with containers' files, for Backing; the
	// usual ones of the runtimes are always looked at.
	Roots []string
}

// Resolver answers who is behind a process or file. It is safe for concurrent
// use and may be used before and while Run runs.
type Resolver struct {
	cfg    Config
	host   threat.Workload
	hostNS string // mount namespace of process 1
	mounts *mounts.Cache

	// Identities by the text of /proc/PID/cgroup. The text is read every time:
	// it cannot be stale, so neither a reused pid nor a process that has just
	// joined a container gets another's identity, and reading it costs less than
	// reading the start time that would make a cache by pid safe.
	mu         sync.RWMutex
	byText     map[string]identity
	generation uint64
	finding    map[string]chan struct{} // container ids being asked about
	found      map[string]Entry
	missed     map[string]time.Time // when a runtime last did not know the id
}

type identity struct {
	w       threat.Workload
	expires time.Time // zero: until the next change
}

const (
	maxTexts    = 8192
	provisional = time.Second // an unknown container's identity is looked up again after this
	maxCgroup   = 16 << 10
)

// New returns a resolver; it reads nothing but the mount namespace of process 1.
func New(cfg Config) (*Resolver, error) {
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.FindTimeout <= 0 {
		cfg.FindTimeout = 150 * time.Millisecond
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	ns, err := os.Readlink(cfg.Proc + "/1/ns/mnt")
	if err != nil && !errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("reading the host's mount namespace: %w", err)
	}
	r := &Resolver{
		cfg: cfg, hostNS: ns, mounts: mounts.NewCache(cfg.Proc),
		host:   threat.Workload{ID: HostID, Kind: threat.KindHost, Name: cfg.Node, Node: cfg.Node},
		byText: map[string]identity{}, finding: map[string]chan struct{}{}, found: map[string]Entry{},
		missed: map[string]time.Time{},
	}
	if r.host.Name == "" {
		r.host.Name = HostID
	}
	for _, inv := range cfg.Inventories {
		if n, ok := inv.(Notifier); ok {
			n.OnChange(r.changed)
		}
	}
	return r, nil
}

// Run runs the inventories until ctx ends. An inventory that gives up is an
// error: containers would get no names from then on.
func (r *Resolver) Run(ctx context.Context) error {
	run := make([]func(context.Context) error, len(r.cfg.Inventories))
	for i, inv := range r.cfg.Inventories {
		run[i] = inv.Run
	}
	return task.Run(ctx, run...)
}

// changed forgets identities that an inventory may now know better.
func (r *Resolver) changed(c Change) {
	r.mu.Lock()
	r.generation++
	clear(r.byText)
	clear(r.found)
	clear(r.missed)
	r.mu.Unlock()
	if r.cfg.OnChange != nil {
		c.Workload.Node = r.cfg.Node
		r.cfg.OnChange(c)
	}
}

// Host is the workload of processes that are in no container.
func (r *Resolver) Host() threat.Workload { return r.host }

// Process returns the workload a process belongs to. The error wraps
// os.ErrNotExist when the process is gone. Ask while the process waits for the
// answer to its event: then it cannot be another one. The labels are shared:
// do not change them.
func (r *Resolver) Process(pid int) (threat.Workload, error) {
	if pid <= 0 {
		// Events from outside of our pid namespace carry no pid.
		return threat.Workload{}, fmt.Errorf("identifying process %d: %w", pid, os.ErrNotExist)
	}
	buf := buffers.Get().(*[maxCgroup]byte)
	defer buffers.Put(buf)
	n, err := readInto(r.cfg.Proc+"/"+strconv.Itoa(pid)+"/cgroup", buf[:])
	if err != nil {
		return threat.Workload{}, fmt.Errorf("identifying process %d: %w", pid, err)
	}
	text := buf[:n]
	r.mu.RLock()
	id, ok := r.byText[string(text)]
	generation := r.generation
	r.mu.RUnlock()
	if ok && (id.expires.IsZero() || time.Now().Before(id.expires)) {
		return id.w, nil
	}
	id, cache := r.identify(pid, text)
	if cache {
		r.remember(string(text), id, generation)
	}
	return id.w, nil
}

var buffers = sync.Pool{New: func() any { return new([maxCgroup]byte) }}

// readInto reads a small file of the proc file system without the machinery
// of os.File, which costs more than the reading.
func readInto(name string, buf []byte) (int, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, &os.PathError{Op: "open", Path: name, Err: err}
	}
	defer func() { _ = unix.Close(fd) }()
	n := 0
	for n < len(buf) {
		m, err := unix.Read(fd, buf[n:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if errors.Is(err, unix.ESRCH) { // ended after the open
			err = os.ErrNotExist
		}
		if err != nil {
			return n, &os.PathError{Op: "read", Path: name, Err: err}
		}
		if m == 0 {
			break
		}
		n += m
	}
	return n, nil
}

func (r *Resolver) remember(text string, id identity, generation uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.generation != generation {
		return // an inventory changed meanwhile
	}
	if len(r.byText) >= maxTexts {
		clear(r.byText)
	}
	r.byText[text] = id
}
