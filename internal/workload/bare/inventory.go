// Package bare is the inventory of containers that only their control groups
// tell of: whatever runtime made them, they are listed with their ids, so that
// nothing that runs is invisible. It comes after the runtimes' own inventories,
// which know names and images.
package bare

import (
	"context"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/lazaret/lazaret/internal/workload"
	"github.com/lazaret/lazaret/internal/workload/cgroup"
)

// Config of an Inventory.
type Config struct {
	// Cgroups is the directory with the control group file systems; default
	// "/sys/fs/cgroup".
	Cgroups string
	// Proc is the proc file system; default "/proc".
	Proc string
	// Interval between walks; default 10 s. Identities do not wait for it: the
	// resolver reads them from the process itself.
	Interval time.Duration
	// Log gets changes of state; nil means no log.
	Log *slog.Logger
}

// Inventory lists containers by walking the control groups.
type Inventory struct {
	workload.Table
	*workload.Link

	cfg Config
	fs  fs.FS
}

// New returns an inventory.
func New(cfg Config) (*Inventory, error) {
	if cfg.Cgroups == "" {
		cfg.Cgroups = "/sys/fs/cgroup"
	}
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.Interval <= 0 {
		cfg.Interval = 10 * time.Second
	}
	return &Inventory{cfg: cfg, fs: os.DirFS(cfg.Cgroups), Link: workload.NewLink(cfg.Log, "runtime", "cgroup")}, nil
}

// Run walks until ctx ends.
func (i *Inventory) Run(ctx context.Context) error {
	return i.Follow(ctx, func(ctx context.Context, ready func()) error {
		tick := time.NewTicker(i.cfg.Interval)
		defer tick.Stop()
		for {
			if err := i.walk(); err != nil {
				return err
			}
			ready()
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-tick.C:
			}
		}
	})
}

func (i *Inventory) walk() error {
	groups, err := cgroup.Walk(i.fs)
	if err != nil {
		return err
	}
	host, err := i.namespace(1)
	if err != nil {
		return fmt.Errorf("reading the host's mount namespace: %w", err)
	}
	var out []workload.Entry
	for _, g := range groups {
		if g.Ref.Weak {
			// A group of two names may be any service's; a mount namespace of its
			// own makes it a container.
			if ns, err := i.namespace(g.PID); err != nil || ns == host {
				continue
			}
		}
		out = append(out, entry(g))
	}
	i.Replace(out)
	return nil
}

// Entries returns the containers whose process still runs: between two walks
// that is how ended ones are noticed.
func (i *Inventory) Entries() []workload.Entry {
	return slices.DeleteFunc(i.Table.Entries(), func(e workload.Entry) bool { return !i.alive(e) })
}

// Entry returns a container by id if its process still runs.
func (i *Inventory) Entry(id string) (workload.Entry, bool) {
	e, ok := i.Table.Entry(id)
	if !ok || !i.alive(e) {
		return workload.Entry{}, false
	}
	return e, true
}

func (i *Inventory) alive(e workload.Entry) bool {
	_, err := os.Lstat(i.cfg.Proc + "/" + strconv.Itoa(e.PID))
	return err == nil
}

func (i *Inventory) namespace(pid int) (string, error) {
	return os.Readlink(i.cfg.Proc + "/" + strconv.Itoa(pid) + "/ns/mnt")
}

func entry(g cgroup.Group) workload.Entry {
	runtime := g.Ref.Runtime
	if runtime == "" {
		runtime = "cgroup"
	}
	var labels map[string]string
	if g.Ref.PodUID != "" {
		labels = map[string]string{workload.LabelPodUID: g.Ref.PodUID}
	}
	return workload.Entry{
		Workload:  workload.Container(runtime, g.Ref.ID, "", "", labels),
		Container: g.Ref.ID, PID: g.PID, Cgroup: g.Ref.Path,
	}
}
