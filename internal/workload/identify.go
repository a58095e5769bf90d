package workload

import (
	"context"
	"os"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/cgroup"
)

// identify finds out whose process has this control group text, and whether
// that holds for every process with the same text.
func (r *Resolver) identify(pid int, text []byte) (identity, bool) {
	ref, ok := cgroup.Parse(text)
	if ok {
		// A weak path must be the one that the runtime chose.
		if e, known := r.Entry(ref.ID); known && (!ref.Weak || e.Cgroup == "" || e.Cgroup == ref.Path) {
			if e.Image == "" { // found by its group only: the runtime may tell more
				if f, ok := r.find(ref); ok {
					e = f
				}
			}
			return identity{w: r.on(e.Workload)}, true
		}
	}
	if e, known := r.byCgroup(cgroup.Paths(text)); known {
		return identity{w: e.Workload}, true
	}
	if !ok {
		return r.unplaced(pid, text)
	}
	if ref.Weak && !r.contained(pid) {
		// A service's own group, or a runtime's helper that is about to enter the
		// container: the group alone proves nothing, so nothing is remembered.
		if e, found := r.find(ref); found {
			return identity{w: r.on(e.Workload), expires: time.Now().Add(provisional)}, true
		}
		return identity{w: r.host}, false
	}
	if e, found := r.find(ref); found {
		return identity{w: r.on(e.Workload), expires: time.Now().Add(provisional)}, true
	}
	w := Container(ref.Runtime, ref.ID, "", "", nil)
	if w.Runtime == "" {
		w.Runtime = "cgroup"
	}
	if ref.PodUID != "" {
		w.Labels = map[string]string{LabelPodUID: ref.PodUID}
	}
	return identity{w: r.on(w), expires: time.Now().Add(provisional)}, true
}

// unplaced handles text that names no container. Processes with a mount
// namespace of their own in an unusual group may be a container whose group
// was chosen by hand; the runtime is asked before it is called the host's.
func (r *Resolver) unplaced(pid int, text []byte) (identity, bool) {
	paths := cgroup.Paths(text)
	if len(paths) == 0 || unit(paths[0]) || !r.contained(pid) {
		return identity{w: r.host}, true
	}
	if e, ok := r.find(cgroup.Ref{ID: path.Base(paths[0]), Path: paths[0], Weak: true}); ok {
		return identity{w: r.on(e.Workload), expires: time.Now().Add(provisional)}, true
	}
	return identity{w: r.host, expires: time.Now().Add(provisional)}, true
}

// unit reports whether a control group is one of systemd's own.
func unit(group string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(group, "/"), "/")
	return strings.HasSuffix(first, ".slice") || strings.HasSuffix(first, ".scope") || strings.HasSuffix(first, ".service")
}

// contained reports whether a process has another mount namespace than the
// host's process 1.
func (r *Resolver) contained(pid int) bool {
	ns, err := os.Readlink(r.cfg.Proc + "/" + strconv.Itoa(pid) + "/ns/mnt")
	return err == nil && r.hostNS != "" && ns != r.hostNS
}

// byCgroup finds the container that was given one of these groups, or a group
// above one of them.
func (r *Resolver) byCgroup(paths []string) (Entry, bool) {
	for _, inv := range r.cfg.Inventories {
		for _, e := range inv.Entries() {
			if e.Cgroup == "" || e.Cgroup == "/" {
				continue
			}
			for _, p := range paths {
				if rest, ok := strings.CutPrefix(p, e.Cgroup); ok && (rest == "" || rest[0] == '/') {
					e.Workload = r.on(e.Workload)
					return e, true
				}
			}
		}
	}
	return Entry{}, false
}

// find asks the runtimes about a container, each container once at a time,
// and waits a bounded time: the runtime itself may be waiting for an answer
// about a file that we owe it. A late answer is kept for the next question.
func (r *Resolver) find(ref cgroup.Ref) (Entry, bool) {
	r.mu.Lock()
	if e, ok := r.found[ref.ID]; ok {
		r.mu.Unlock()
		return e, true
	}
	if time.Since(r.missed[ref.ID]) < provisional {
		r.mu.Unlock()
		return Entry{}, false
	}
	done, asked := r.finding[ref.ID]
	if !asked {
		done = make(chan struct{})
		r.finding[ref.ID] = done
		go r.ask(ref, done)
	}
	r.mu.Unlock()
	timeout := time.NewTimer(r.cfg.FindTimeout)
	defer timeout.Stop()
	select {
	case <-done:
	case <-timeout.C:
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	e, ok := r.found[ref.ID]
	return e, ok
}

func (r *Resolver) ask(ref cgroup.Ref, done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	var e Entry
	ok := false
	for _, inv := range r.cfg.Inventories {
		if f, can := inv.(Finder); can && !ok {
			e, ok = f.Find(ctx, ref)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if ok {
		r.found[ref.ID] = e
		clear(r.byText) // provisional identities
	} else {
		if len(r.missed) >= maxTexts {
			clear(r.missed)
		}
		r.missed[ref.ID] = time.Now()
	}
	delete(r.finding, ref.ID)
	close(done)
}

// Entry returns a running container by its id, as the first inventory that
// knows it describes it; what that one does not know is taken from the others.
func (r *Resolver) Entry(container string) (Entry, bool) {
	var out Entry
	found := false
	for _, inv := range r.cfg.Inventories {
		e, ok := inv.Entry(container)
		if !ok {
			continue
		}
		if found {
			out.fill(e)
			continue
		}
		out, found = e, true
		out.Workload = r.on(e.Workload)
	}
	return out, found
}

// fill takes what is missing from another inventory's entry.
func (e *Entry) fill(o Entry) {
	if e.Image == "" {
		e.Image = o.Image
	}
	if e.PID == 0 {
		e.PID = o.PID
	}
	if e.Cgroup == "" {
		e.Cgroup = o.Cgroup
	}
	if e.Layers == nil {
		e.Layers = o.Layers
	}
}

// Entries returns the running containers of all inventories, each once.
func (r *Resolver) Entries() []Entry {
	at := map[string]int{}
	var out []Entry
	for _, inv := range r.cfg.Inventories {
		for _, e := range inv.Entries() {
			if n, ok := at[e.Container]; ok {
				out[n].fill(e)
				continue
			}
			at[e.Container] = len(out)
			e.Workload = r.on(e.Workload)
			out = append(out, e)
		}
	}
	return out
}

// Workloads returns the host and all running containers.
func (r *Resolver) Workloads() []threat.Workload {
	out := []threat.Workload{r.host}
	for _, e := range r.Entries() {
		out = append(out, e.Workload)
	}
	return out
}

// Lookup finds running containers by what a person types: workload id,
// container id or a unique beginning of at least four characters of it, name,
// or "namespace/pod". A pod has several containers.
func (r *Resolver) Lookup(name string) []Entry {
	entries := r.Entries()
	for _, match := range []func(*Entry) bool{
		func(e *Entry) bool { return e.ID == name || e.Container == name },
		func(e *Entry) bool { return e.Name == name },
		func(e *Entry) bool { return e.Pod != "" && e.Pod == name },
		func(e *Entry) bool { return len(name) >= 4 && strings.HasPrefix(e.Container, name) },
	} {
		var out []Entry
		for i := range entries {
			if match(&entries[i]) {
				out = append(out, entries[i])
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

func (r *Resolver) on(w threat.Workload) threat.Workload {
	w.Node = r.cfg.Node
	return w
}
