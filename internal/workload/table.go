package workload

import (
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/lazaret/lazaret/internal/threat"
)

// Entry is a running container as an inventory knows it.
type Entry struct {
	threat.Workload
	// Container is the runtime's id.
	Container string
	// PID of the container's first process on the host; 0 if not known (yet).
	PID int
	// Cgroup is the absolute control group path the runtime was asked to use;
	// empty if that is not known.
	Cgroup string
	// Layers maps the directories of the container's read-only layers to the
	// digests of the image's layers; nil if not known.
	Layers map[string]string
}

// Change says that a container started, stopped, or that more is known of it.
type Change struct {
	Workload threat.Workload
	// PID of the first process, 0 if not known.
	PID int
	// Running is false when the container has stopped.
	Running bool
}

// Table is the running containers of one inventory; inventories embed it. It
// is safe for concurrent use. Entries must not be changed after Put.
type Table struct {
	mu       sync.RWMutex
	byID     map[string]Entry
	onChange []func(Change)
}

// OnChange registers a function that is called after every change, outside of
// the table's lock. It must be registered before the inventory runs and must
// not block.
func (t *Table) OnChange(f func(Change)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onChange = append(t.onChange, f)
}

// Put adds or replaces a container.
func (t *Table) Put(e Entry) {
	t.mu.Lock()
	if t.byID == nil {
		t.byID = map[string]Entry{}
	}
	t.byID[e.Container] = e
	notify := t.onChange
	t.mu.Unlock()
	for _, f := range notify {
		f(Change{Workload: e.Workload, PID: e.PID, Running: true})
	}
}

// Remove removes a container that stopped; an unknown id is ignored.
func (t *Table) Remove(id string) {
	t.mu.Lock()
	e, ok := t.byID[id]
	delete(t.byID, id)
	notify := t.onChange
	t.mu.Unlock()
	if !ok {
		return
	}
	for _, f := range notify {
		f(Change{Workload: e.Workload, PID: e.PID})
	}
}

// Replace makes the table hold exactly these containers, as after a listing;
// changes are told only of those that differ.
func (t *Table) Replace(entries []Entry) {
	keep := map[string]bool{}
	for _, e := range entries {
		keep[e.Container] = true
		if old, ok := t.Entry(e.Container); !ok || !old.Equal(e) {
			t.Put(e)
		}
	}
	for _, id := range t.ids() {
		if !keep[id] {
			t.Remove(id)
		}
	}
}

func (t *Table) ids() []string {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Collect(maps.Keys(t.byID))
}

// Entries returns all containers, ordered by id.
func (t *Table) Entries() []Entry {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.SortedFunc(maps.Values(t.byID), func(a, b Entry) int { return strings.Compare(a.Container, b.Container) })
}

// Entry returns the container with an id.
func (t *Table) Entry(id string) (Entry, bool) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	e, ok := t.byID[id]
	return e, ok
}

// Workloads returns all containers as workloads, ordered by id.
func (t *Table) Workloads() []threat.Workload {
	entries := t.Entries()
	out := make([]threat.Workload, len(entries))
	for i := range entries {
		out[i] = entries[i].Workload
	}
	return out
}

// ByContainer returns the workload of a container id.
func (t *Table) ByContainer(id string) (threat.Workload, bool) {
	e, ok := t.Entry(id)
	return e.Workload, ok
}

// Equal reports whether two entries say the same.
func (e Entry) Equal(o Entry) bool {
	a, b := e.Workload, o.Workload
	same := maps.Equal(a.Labels, b.Labels) && maps.Equal(e.Layers, o.Layers) &&
		e.Container == o.Container && e.PID == o.PID && e.Cgroup == o.Cgroup
	return same && a.ID == b.ID && a.Name == b.Name && a.Tenant == b.Tenant && a.Runtime == b.Runtime &&
		a.Image == b.Image && a.Pod == b.Pod && a.Namespace == b.Namespace
}
