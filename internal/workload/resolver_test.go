package workload

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/cgroup"
)

const id64 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// proc is a fake proc file system.
type proc struct {
	t   testing.TB
	dir string
}

func newProc(t testing.TB) proc {
	p := proc{t, t.TempDir()}
	p.process(1, "0::/init.scope\n", "mnt:[1]")
	return p
}

func (p proc) process(pid int, groups, ns string) {
	p.t.Helper()
	dir := filepath.Join(p.dir, strconv.Itoa(pid))
	require.NoError(p.t, os.RemoveAll(dir))
	require.NoError(p.t, os.MkdirAll(filepath.Join(dir, "ns"), 0o755))
	require.NoError(p.t, os.Symlink(ns, filepath.Join(dir, "ns/mnt")))
	require.NoError(p.t, os.Symlink("/", filepath.Join(dir, "root")))
	require.NoError(p.t, os.Symlink("/bin/tool (deleted)", filepath.Join(dir, "exe")))
	for name, text := range map[string]string{
		"cgroup":  groups,
		"cmdline": "tool\x00-x\x00\xff\x00",
		"stat":    fmt.Sprintf("%d (a) b) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 4242 0 0", pid),
		"status":  "Name:\ttool\nUid:\t1000\t0\t0\t0\n",
	} {
		require.NoError(p.t, os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
	}
}

// runtime is a fake inventory that may know more than it lists.
type runtime struct {
	Table
	mu    sync.Mutex
	more  map[string]Entry
	asked atomic.Int64
	delay time.Duration
}

func (r *runtime) Run(ctx context.Context) error { <-ctx.Done(); return nil }

func (r *runtime) Find(_ context.Context, ref cgroup.Ref) (Entry, bool) {
	r.asked.Add(1)
	time.Sleep(r.delay)
	r.mu.Lock()
	defer r.mu.Unlock()
	e, ok := r.more[ref.ID]
	if !ok {
		for _, x := range r.more {
			if x.Cgroup != "" && x.Cgroup == ref.Path {
				return x, true
			}
		}
	}
	return e, ok
}

func entry(id, name, group string) Entry {
	return Entry{Workload: Container("containerd", id, name, "img:1", nil), Container: id, Cgroup: group}
}

func resolver(t testing.TB, p proc, inv ...Inventory) *Resolver {
	r, err := New(Config{Node: "n", Proc: p.dir, Inventories: inv})
	require.NoError(t, err)
	return r
}

func TestProcess(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	inv := &runtime{more: map[string]Entry{"late": entry("late", "late", ""), "hand": entry("hand", "hand", "/by/hand/chosen")}}
	inv.Put(entry(id64, "web", ""))
	inv.Put(entry("t1", "one", "/default/t1"))
	inv.Put(entry("special", "special", "/own/group"))
	r := resolver(t, p, inv)
	for n, c := range []struct {
		name, groups, ns string
		want             string // workload id
		called           string // workload name
	}{
		{"host service", "0::/system.slice/ssh.service\n", "mnt:[1]", HostID, "n"},
		{"host service with a mount namespace", "0::/system.slice/ssh.service\n", "mnt:[9]", HostID, "n"},
		{"root group", "0::/\n", "mnt:[1]", HostID, "n"},
		{"docker", "0::/docker/" + id64 + "\n", "mnt:[2]", ID(id64), "web"},
		{"docker, still in the host's namespace", "0::/docker/" + id64 + "\n", "mnt:[1]", ID(id64), "web"},
		{"ctr", "0::/default/t1\n", "mnt:[2]", ID("t1"), "one"},
		{"ctr, another namespace's container", "0::/other/t1\n", "mnt:[1]", HostID, "n"},
		{"group chosen by hand, listed", "0::/own/group/sub\n", "mnt:[2]", ID("special"), "special"},
		{"group chosen by hand, asked for", "0::/by/hand/chosen\n", "mnt:[2]", ID("hand"), "hand"},
		{"not listed yet", "0::/default/late\n", "mnt:[1]", ID("late"), "late"},
		{"nobody knows it", "0::/kubepods/pod11112222-3333-4444-5555-666677778888/" + strings.Repeat("a", 64) + "\n", "mnt:[2]", ID(strings.Repeat("a", 64)), "aaaaaaaaaaaa"},
		{"weak, nobody knows it, own namespace", "0::/default/unknown\n", "mnt:[2]", ID("unknown"), "unknown"},
		{"weak, nobody knows it, host's namespace", "0::/some/service\n", "mnt:[1]", HostID, "n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			pid := 100 + n
			p.process(pid, c.groups, c.ns)
			for range 2 { // uncached, cached
				w, err := r.Process(pid)
				require.NoError(t, err)
				require.Equal(t, c.want, w.ID)
				require.Equal(t, c.called, w.Name)
				require.Equal(t, "n", w.Node)
			}
		})
	}
	_, err := r.Process(4711)
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = r.Process(0)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestPIDReuseAndJoining(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	inv := &runtime{}
	inv.Put(entry("t1", "one", "/default/t1"))
	r := resolver(t, p, inv)
	// The runtime's helper is the host's until it joins the container's group;
	// pid and start time stay the same.
	p.process(50, "0::/system.slice/containerd.service\n", "mnt:[1]")
	w, err := r.Process(50)
	require.NoError(t, err)
	require.Equal(t, HostID, w.ID)
	p.process(50, "0::/default/t1\n", "mnt:[1]")
	w, err = r.Process(50)
	require.NoError(t, err)
	require.Equal(t, ID("t1"), w.ID)
}

func TestUnknownIsAskedOnce(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	inv := &runtime{}
	r := resolver(t, p, inv)
	p.process(50, "0::/docker/"+id64+"\n", "mnt:[2]")
	p.process(51, "0::/a/b\n", "mnt:[1]")
	for range 50 {
		for _, pid := range []int{50, 51} {
			_, err := r.Process(pid)
			require.NoError(t, err)
		}
	}
	require.LessOrEqual(t, inv.asked.Load(), int64(4))

	// What the inventory learns later replaces the provisional identity.
	inv.Put(entry(id64, "web", ""))
	w, err := r.Process(50)
	require.NoError(t, err)
	require.Equal(t, ID(id64), w.ID)
	// r was told of the change because Table reports it.
	require.Equal(t, "web", w.Name)
}

func TestSlowRuntimeDoesNotBlock(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	inv := &runtime{delay: 500 * time.Millisecond, more: map[string]Entry{id64: entry(id64, "web", "")}}
	r, err := New(Config{Proc: p.dir, Inventories: []Inventory{inv}, FindTimeout: 20 * time.Millisecond})
	require.NoError(t, err)
	p.process(50, "0::/docker/"+id64+"\n", "mnt:[2]")
	start := time.Now()
	w, err := r.Process(50)
	require.NoError(t, err)
	require.Less(t, time.Since(start), 300*time.Millisecond)
	require.Equal(t, ID(id64), w.ID, "the id is known even if the name is not")
	require.Eventually(t, func() bool {
		w, err := r.Process(50)
		return err == nil && w.Name == "web"
	}, 3*time.Second, 20*time.Millisecond, "the late answer is used")
	require.Equal(t, int64(1), inv.asked.Load())
}

func TestPreferenceAndLookup(t *testing.T) {
	t.Parallel()
	first, second := &runtime{}, &runtime{}
	first.Put(Entry{Workload: Container("docker", id64, "shop", "shop:1", nil), Container: id64, PID: 7})
	second.Put(entry(id64, "", ""))
	second.Put(Entry{Workload: Container("containerd", "p1", "", "i", map[string]string{
		LabelPodName: "pod-a", LabelPodNamespace: "team", LabelContainer: "app"}), Container: "p1"})
	var changes atomic.Int64
	p := newProc(t)
	r, err := New(Config{Node: "n", Proc: p.dir, Inventories: []Inventory{first, second}, OnChange: func(c Change) {
		require.Equal(t, "n", c.Workload.Node)
		changes.Add(1)
	}})
	require.NoError(t, err)
	ws := r.Workloads()
	require.Len(t, ws, 3)
	require.Equal(t, HostID, ws[0].ID)
	require.Equal(t, "shop", ws[1].Name)
	require.Equal(t, "team", ws[2].Tenant)
	for _, name := range []string{"shop", id64, ID(id64), id64[:12]} {
		got := r.Lookup(name)
		require.Len(t, got, 1, name)
		require.Equal(t, 7, got[0].PID)
	}
	require.Len(t, r.Lookup("team/pod-a"), 1)
	require.Empty(t, r.Lookup("nothing"))
	require.Empty(t, r.Lookup("012"))
	first.Remove(id64)
	first.Remove(id64)
	require.Equal(t, int64(1), changes.Load())
}

func TestRunEndsWithContext(t *testing.T) {
	t.Parallel()
	r := resolver(t, newProc(t), &runtime{}, &runtime{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, r.Run(ctx))
}

func TestDescribe(t *testing.T) {
	t.Parallel()
	p := newProc(t)
	p.process(60, "0::/\n", "mnt:[1]")
	r := resolver(t, p)
	got, err := r.Describe(60)
	require.NoError(t, err)
	require.Equal(t, threat.Process{PID: 60, Start: 4242, Exe: "/bin/tool", Command: "tool -x \uFFFD", UID: 1000}, got)
	_, err = r.Describe(61)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestTableReplace(t *testing.T) {
	t.Parallel()
	var tab Table
	var log []string
	tab.OnChange(func(c Change) { log = append(log, fmt.Sprint(c.Workload.Name, c.Running)) })
	tab.Replace([]Entry{entry("a", "a", ""), entry("b", "b", "")})
	tab.Replace([]Entry{entry("b", "b", ""), entry("c", "c", "")})
	require.Equal(t, []string{"atrue", "btrue", "ctrue", "afalse"}, log)
	_, ok := tab.ByContainer("c")
	require.True(t, ok)
	require.Len(t, tab.Workloads(), 2)
}

func TestPlaceLocation(t *testing.T) {
	t.Parallel()
	p := Place{Path: "/\xff", HostPath: "/h", Layer: LayerUpper, Image: ""}
	require.Equal(t, threat.Location{Node: "n", Workload: "w", Path: `/\xff`, HostPath: "/h", Layer: "upper"}, p.Location(threat.Workload{ID: "w", Node: "n"}))
}

func TestDirectoryName(t *testing.T) {
	t.Parallel()
	for dir, want := range map[string]string{
		"/r/io.containerd.snapshotter.v1.overlayfs/snapshots/12/fs": "snapshots/12",
		"/var/lib/docker/overlay2/abc/diff":                         "overlay2/abc",
		"/some/where":                                               "some/where",
	} {
		require.Equal(t, want, directoryName(dir))
	}
}

func BenchmarkProcessCached(b *testing.B) {
	p := newProc(b)
	p.process(50, "9:name=systemd:/docker/"+id64+"\n4:memory:/docker/"+id64+"\n0::/docker/"+id64+"\n", "mnt:[2]")
	inv := &runtime{}
	inv.Put(entry(id64, "web", ""))
	r := resolver(b, p, inv)
	b.ReportAllocs()
	for b.Loop() {
		if w, err := r.Process(50); err != nil || w.Name != "web" {
			b.Fatal(w, err)
		}
	}
}
