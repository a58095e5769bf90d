//go:build privileged

package workload_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload"
	"github.com/lazaret/lazaret/internal/workload/bare"
	"github.com/lazaret/lazaret/internal/workload/containerd"
	"github.com/lazaret/lazaret/internal/workload/containerdtest"
	"github.com/lazaret/lazaret/internal/workload/mounts"
)

// seen is one open that the kernel asked about, resolved while the opener waited.
type seen struct {
	pid      int
	name     string // path of the event's descriptor
	workload threat.Workload
	place    workload.Place
	err      error
}

// watcher holds a permission group on one loop file system: identities must be
// right while the opener waits, as in the product. The group ends with the
// test process, so nothing can stay blocked.
type watcher struct {
	group *os.File
	mu    sync.Mutex
	all   []seen
}

func watch(t *testing.T, mount string, r *workload.Resolver) *watcher {
	t.Helper()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_CONTENT|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK|unix.FAN_UNLIMITED_QUEUE, unix.O_RDONLY|unix.O_LARGEFILE|unix.O_CLOEXEC)
	require.NoError(t, err)
	w := &watcher{group: os.NewFile(uintptr(fd), "fanotify")}
	t.Cleanup(func() { _ = w.group.Close() })
	require.NoError(t, unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN_PERM|unix.FAN_OPEN_EXEC_PERM, unix.AT_FDCWD, mount))
	go w.read(r)
	return w
}

func (w *watcher) read(r *workload.Resolver) {
	buf := make([]byte, 4096)
	for {
		n, err := w.group.Read(buf)
		if err != nil {
			return
		}
		for b := buf[:n]; len(b) >= 24; b = b[binary.LittleEndian.Uint32(b):] {
			fd := int32(binary.LittleEndian.Uint32(b[16:]))
			// A goroutine each: the runtime itself opens files here while we ask it.
			go w.answer(r, fd, int(int32(binary.LittleEndian.Uint32(b[20:]))))
		}
	}
}

func (w *watcher) answer(r *workload.Resolver, fd int32, pid int) {
	if pid != os.Getpid() {
		s := seen{pid: pid}
		s.name, _ = os.Readlink("/proc/self/fd/" + strconv.Itoa(int(fd)))
		var st unix.Stat_t
		_ = unix.Fstat(int(fd), &st)
		s.workload, _ = r.Process(pid)
		if st.Mode&unix.S_IFMT == unix.S_IFREG {
			s.place, s.err = r.Locate(pid, s.name, st.Dev, st.Ino)
			w.mu.Lock()
			w.all = append(w.all, s)
			w.mu.Unlock()
		}
	}
	answer := make([]byte, 8)
	binary.LittleEndian.PutUint32(answer, uint32(fd))
	binary.LittleEndian.PutUint32(answer[4:], unix.FAN_ALLOW)
	_, _ = w.group.Write(answer)
	_ = unix.Close(int(fd))
}

// of returns what was seen of files whose path inside ends in name.
func (w *watcher) of(id string) []seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(w.all), func(s seen) bool { return s.workload.ID != id })
}

func (w *watcher) find(t *testing.T, id, path string) seen {
	t.Helper()
	for _, s := range w.of(id) {
		if s.place.Path == path {
			return s
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	var all bytes.Buffer
	for _, s := range w.all {
		fmt.Fprintf(&all, "%s %s %+v %v\n", s.workload.ID, s.name, s.place, s.err)
	}
	require.Failf(t, "not seen", "%s %s in\n%s", id, path, all.String())
	return seen{}
}

type world struct {
	rt       *containerdtest.Runtime
	resolver *workload.Resolver
	image    containerdtest.Image
	watcher  *watcher
	changes  chan workload.Change
}

// start runs a containerd, an inventory of it (if listed) and a watcher.
func start(t *testing.T, run bool) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "lzw")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	rt, err := containerdtest.Start(t.Context(), containerdtest.Config{Dir: dir})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, rt.Close()) })
	w := &world{rt: rt, changes: make(chan workload.Change, 100)}
	w.image, err = rt.Image(t.Context(), "localhost/lazaret/web:1",
		containerdtest.Layer{{Path: "data/lower", Data: []byte("lower")}},
		containerdtest.Layer{{Path: "data/top", Data: []byte("top")}})
	require.NoError(t, err)
	inv, err := containerd.New(containerd.Config{Socket: rt.Socket})
	require.NoError(t, err)
	t.Cleanup(func() { _ = inv.Close() })
	groups, err := bare.New(bare.Config{Interval: time.Second})
	require.NoError(t, err)
	w.resolver, err = workload.New(workload.Config{
		Node: "node1", Inventories: []workload.Inventory{inv, groups}, Roots: []string{rt.Root()},
		OnChange: func(c workload.Change) { w.changes <- c },
	})
	require.NoError(t, err)
	if run {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- w.resolver.Run(ctx) }()
		t.Cleanup(func() { cancel(); require.NoError(t, <-done) })
		require.Eventually(t, func() bool { return inv.State() == nil }, 20*time.Second, 10*time.Millisecond)
	}
	w.watcher = watch(t, rt.Mount(), w.resolver)
	return w
}

func TestContainer(t *testing.T) {
	w := start(t, true)
	bind := filepath.Join(w.rt.Mount(), "volume") // on the watched file system
	require.NoError(t, os.Mkdir(bind, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(bind, "b"), []byte("bind"), 0o600))
	c, err := w.rt.RunSpec(t.Context(), containerdtest.Spec{
		ID: "web", Image: w.image.Name, Binds: map[string]string{bind: "/srv"},
		Labels: map[string]string{"app": "shop"},
	})
	require.NoError(t, err)
	id := workload.ID("web")

	got, err := w.resolver.Process(c.PID)
	require.NoError(t, err)
	require.Equal(t, "web", got.Name)
	require.Equal(t, w.image.Name, got.Image)
	require.Equal(t, "containerd", got.Runtime)
	require.Equal(t, "node1", got.Node)
	require.Equal(t, "shop", got.Labels["app"])
	host, err := w.resolver.Process(os.Getpid())
	require.NoError(t, err)
	require.Equal(t, workload.HostID, host.ID)

	// Every event of the container's first process is attributed from the start.
	first := w.watcher.of(id)
	require.NotEmpty(t, first)
	for _, s := range first {
		require.Equal(t, w.image.Name, s.workload.Image, "%+v", s)
		require.NoError(t, s.err, "%+v", s)
	}
	exe := w.watcher.find(t, id, "/bin/busybox")
	require.Equal(t, w.image.Layers[0], exe.place.Layer)
	require.False(t, exe.place.Writable)

	res, err := c.Sh(t.Context(), "echo up >/data/upper; cat /data/upper /data/lower /data/top /srv/b; echo more >>/data/lower; cat /data/lower")
	require.NoError(t, err)
	require.Zero(t, res.Code, res.Stderr)

	upper := w.watcher.find(t, id, "/data/upper")
	require.Equal(t, workload.LayerUpper, upper.place.Layer)
	require.True(t, upper.place.Writable)
	b, err := os.ReadFile(upper.place.HostPath)
	require.NoError(t, err)
	require.Equal(t, "up\n", string(b))

	lower := w.watcher.find(t, id, "/data/lower")
	require.Equal(t, w.image.Layers[1], lower.place.Layer)
	require.Equal(t, w.image.Name, lower.place.Image)
	require.False(t, lower.place.Writable)
	require.Equal(t, w.image.Layers[2], w.watcher.find(t, id, "/data/top").place.Layer)

	volume := w.watcher.find(t, id, "/srv/b")
	require.Equal(t, workload.Place{Path: "/srv/b", HostPath: filepath.Join(bind, "b"), Writable: true}, volume.place)

	copied := false // the last read is of the copy in the upper layer
	for _, s := range w.watcher.of(id) {
		copied = copied || (s.place.Path == "/data/lower" && s.place.Layer == workload.LayerUpper)
	}
	require.True(t, copied, "a file that was copied up is located in the upper layer")

	// The host sees the same file by its own path.
	h, err := w.resolver.Locate(os.Getpid(), volume.place.HostPath, stat(t, volume.place.HostPath).Dev, stat(t, volume.place.HostPath).Ino)
	require.NoError(t, err)
	require.Equal(t, volume.place.HostPath, h.Path)

	w.holders(t, []holder{
		{upper, upper.name, id, "/data/upper"},
		{volume, volume.name, id, "/srv/b"},                      // as the container saw it
		{volume, volume.place.HostPath, workload.HostID, h.Path}, // as the host saw it
		{exe, exe.name, id, "/bin/busybox"},
	})

	systems, err := w.resolver.Backing()
	require.NoError(t, err)
	var points []string
	for _, s := range systems {
		points = append(points, s.Point)
	}
	require.Contains(t, points, w.rt.Mount())

	found := w.resolver.Lookup("web")
	require.Len(t, found, 1)
	layers, err := w.resolver.Layers(found[0])
	require.NoError(t, err)
	require.Len(t, layers, 4)
	require.Equal(t, workload.LayerUpper, layers[0].Name)
	for n, digest := range w.image.Layers { // bottom first
		require.Equal(t, digest, layers[len(layers)-1-n].Name)
	}
	require.FileExists(t, filepath.Join(layers[0].Dir, "data/upper"))
	require.Len(t, w.resolver.Lookup(id), 1)
	require.NoError(t, c.Stop(t.Context()))
	require.Eventually(t, func() bool { _, ok := w.resolver.Entry("web"); return !ok }, 20*time.Second, 10*time.Millisecond)
	var starts, stops int
	for len(w.changes) > 0 {
		if c := <-w.changes; c.Workload.ID == id && c.Running {
			starts++
		} else if c.Workload.ID == id {
			stops++
		}
	}
	require.Positive(t, starts)
	require.Positive(t, stops)
}

// holder is who must be found for a file whose process is gone.
type holder struct {
	seen     seen
	name     string // of the event's descriptor
	id, path string
}

func (w *world) holders(t *testing.T, all []holder) {
	t.Helper()
	for _, h := range all {
		st := stat(t, h.seen.place.HostPath)
		who, p, err := w.resolver.Holder(h.name, st.Dev, st.Ino)
		require.NoError(t, err, h.name)
		require.Equal(t, h.id, who.ID, h.name)
		require.Equal(t, h.path, p.Path)
		require.Equal(t, "node1", who.Node)
		_, _, err = w.resolver.Holder(h.name, st.Dev, st.Ino+1_000_000)
		require.ErrorIs(t, err, mounts.ErrNotFound, "another file of that name")
	}
}

// Without events (they come late or the inventory is not connected yet) the
// identity of a new container is complete all the same.
func TestIdentityBeforeAnyEvent(t *testing.T) {
	w := start(t, false)
	for n := range 5 {
		name := "fast-" + strconv.Itoa(n)
		c, err := w.rt.RunSpec(t.Context(), containerdtest.Spec{ID: name, Image: w.image.Name, Args: []string{"/bin/sh", "-c", "cat /data/lower; sleep 60"}})
		require.NoError(t, err)
		require.Eventually(t, func() bool {
			out, err := c.Output()
			return err == nil && out == "lower"
		}, 20*time.Second, 5*time.Millisecond)
		events := w.watcher.of(workload.ID(name))
		require.NotEmpty(t, events)
		for _, s := range events {
			require.Equal(t, name, s.workload.Name)
			require.Equal(t, w.image.Name, s.workload.Image)
		}
		require.Equal(t, w.image.Layers[1], w.watcher.find(t, workload.ID(name), "/data/lower").place.Layer)
	}
	// Nothing of a container was taken for the host's.
	for _, s := range w.watcher.of(workload.HostID) {
		require.NotContains(t, []string{"/data/lower", "/bin/busybox"}, s.place.Path, "%+v", s)
	}
}

// A container whose control group was chosen by hand is found by its group.
func TestOwnControlGroup(t *testing.T) {
	w := start(t, true)
	c, err := w.rt.RunSpec(t.Context(), containerdtest.Spec{ID: "odd", Image: w.image.Name, Flags: []string{"--cgroup", "/" + w.rt.Namespace + "/deep/er/group"}})
	require.NoError(t, err)
	got, err := w.resolver.Process(c.PID)
	require.NoError(t, err)
	require.Equal(t, workload.ID("odd"), got.ID)
}

// A restart of the service must find the containers that run already.
func TestRunningContainersAreListed(t *testing.T) {
	w := start(t, false)
	c, err := w.rt.Run(t.Context(), "old", w.image.Name)
	require.NoError(t, err)
	inv, err := containerd.New(containerd.Config{Socket: w.rt.Socket})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- inv.Run(ctx) }()
	require.Eventually(t, func() bool { return inv.State() == nil }, 20*time.Second, 10*time.Millisecond)
	e, ok := inv.Entry("old")
	require.True(t, ok)
	require.Equal(t, c.PID, e.PID)
	require.Len(t, e.Layers, 3)
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, inv.Close())
}

func BenchmarkContainer(b *testing.B) {
	dir, err := os.MkdirTemp("", "lzb")
	require.NoError(b, err)
	b.Cleanup(func() { _ = os.RemoveAll(dir) })
	rt, err := containerdtest.Start(b.Context(), containerdtest.Config{Dir: dir})
	require.NoError(b, err)
	b.Cleanup(func() { _ = rt.Close() })
	image, err := rt.Image(b.Context(), "localhost/lazaret/web:1", containerdtest.Layer{{Path: "data/f", Data: []byte("x")}})
	require.NoError(b, err)
	c, err := rt.Run(b.Context(), "bench", image.Name)
	require.NoError(b, err)
	inv, err := containerd.New(containerd.Config{Socket: rt.Socket})
	require.NoError(b, err)
	b.Cleanup(func() { _ = inv.Close() })
	config := workload.Config{Inventories: []workload.Inventory{inv}}
	r, err := workload.New(config)
	require.NoError(b, err)
	files, err := filepath.Glob(rt.Root() + "/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/data/f")
	require.NoError(b, err)
	require.Len(b, files, 1)
	var st unix.Stat_t
	require.NoError(b, unix.Stat(files[0], &st))

	b.Run("process/cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if w, err := r.Process(c.PID); err != nil || w.Name != "bench" {
				b.Fatal(w, err)
			}
		}
	})
	b.Run("process/uncached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, _ := workload.New(config)
			if w, err := r.Process(c.PID); err != nil || w.Name != "bench" {
				b.Fatal(w, err)
			}
		}
	})
	b.Run("locate/cached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if p, err := r.Locate(c.PID, "/data/f", st.Dev, st.Ino); err != nil || p.Layer == "" {
				b.Fatal(p, err)
			}
		}
	})
	b.Run("locate/uncached", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r, _ := workload.New(config)
			if p, err := r.Locate(c.PID, "/data/f", st.Dev, st.Ino); err != nil || p.Layer == "" {
				b.Fatal(p, err)
			}
		}
	})
}

func stat(t *testing.T, name string) unix.Stat_t {
	t.Helper()
	var st unix.Stat_t
	require.NoError(t, unix.Stat(name, &st))
	return st
}
