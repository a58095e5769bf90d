package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/workload"
	"github.com/lazaret/lazaret/internal/workload/cgroup"
)

// daemon is a fake Docker daemon.
type daemon struct {
	mu         sync.Mutex
	containers map[string]container
	events     chan string
	images     int // requests for images
	filters    string
}

func (d *daemon) set(id, name string, running bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var c container
	c.ID, c.Name, c.Image = id, "/"+name, "sha256:img"
	c.State.Running, c.State.PID = running, 42
	c.Config.Image, c.Config.Labels = "shop:1", map[string]string{"app": name}
	c.GraphDriver.Data.LowerDir = "/d/overlay2/" + name + "-init/diff:/d/overlay2/top/diff:/d/overlay2/base/diff"
	d.containers[id] = c
}

func (d *daemon) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case r.URL.Path == "/containers/json":
		list := []map[string]string{}
		for id, c := range d.containers {
			if c.State.Running {
				list = append(list, map[string]string{"Id": id})
			}
		}
		_ = json.NewEncoder(w).Encode(list)
	case parts[0] == "containers" && len(parts) == 3:
		c, ok := d.containers[parts[1]]
		if !ok {
			http.Error(w, `{"message":"No such container"}`, http.StatusNotFound)
			return
		}
		_ = json.NewEncoder(w).Encode(c)
	case parts[0] == "images":
		d.images++
		_, _ = w.Write([]byte(`{"RootFS":{"Layers":["sha256:base","sha256:top"]}}`))
	case r.URL.Path == "/events":
		d.filters = r.URL.Query().Get("filters")
		w.WriteHeader(http.StatusOK)
		w.(http.Flusher).Flush()
		d.mu.Unlock()
		defer d.mu.Lock()
		for {
			select {
			case e, ok := <-d.events:
				if !ok {
					return // the daemon ends
				}
				_, _ = fmt.Fprintln(w, e)
				w.(http.Flusher).Flush()
			case <-r.Context().Done():
				return
			}
		}
	default:
		http.Error(w, "?", http.StatusInternalServerError)
	}
}

func (d *daemon) say(action, id string) {
	d.events <- fmt.Sprintf(`{"Type":"container","Action":%q,"Actor":{"ID":%q}}`, action, id)
}

func serve(t *testing.T, socket string, d *daemon) *http.Server {
	t.Helper()
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := &http.Server{Handler: d}
	go func() { _ = s.Serve(l) }()
	return s
}

func TestInventory(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "dk")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	inv, err := New(Config{Socket: socket})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- inv.Run(ctx) }()
	require.Eventually(t, func() bool { return errors.Is(inv.State(), fs.ErrNotExist) }, 20*time.Second, time.Millisecond)

	d := &daemon{containers: map[string]container{}, events: make(chan string)}
	d.set("old", "shop", true)
	d.set("dead", "dead", false)
	s := serve(t, socket, d)
	require.Eventually(t, func() bool { return inv.State() == nil }, 20*time.Second, 5*time.Millisecond)
	require.Len(t, inv.Entries(), 1)
	e, ok := inv.Entry("old")
	require.True(t, ok)
	require.Equal(t, "shop", e.Name)
	require.Equal(t, "shop:1", e.Image)
	require.Equal(t, "docker", e.Runtime)
	require.Equal(t, 42, e.PID)
	require.Equal(t, map[string]string{"/d/overlay2/top/diff": "sha256:top", "/d/overlay2/base/diff": "sha256:base"}, e.Layers)
	require.Contains(t, d.filters, "destroy")

	d.set("new", "new", true)
	d.say("start", "new")
	require.Eventually(t, func() bool { _, ok := inv.Entry("new"); return ok }, 20*time.Second, time.Millisecond)
	require.Equal(t, 1, d.images, "an image is asked about once")
	d.set("new", "renamed", true)
	d.say("rename", "new")
	require.Eventually(t, func() bool { e, _ := inv.Entry("new"); return e.Name == "renamed" }, 20*time.Second, time.Millisecond)
	d.say("die", "new")
	require.Eventually(t, func() bool { _, ok := inv.Entry("new"); return !ok }, 20*time.Second, time.Millisecond)
	d.say("start", "never-existed")
	d.say("exotic", "old")

	// Asked about before its event came.
	d.set("fresh", "fresh", true)
	e, ok = inv.Find(ctx, cgroup.Ref{Runtime: "docker", ID: "fresh"})
	require.True(t, ok)
	require.Equal(t, workload.ID("fresh"), e.ID)
	for _, ref := range []cgroup.Ref{{ID: "nothing"}, {ID: "fresh", Weak: true}, {ID: "fresh", Runtime: "podman"}} {
		_, ok = inv.Find(ctx, ref)
		require.False(t, ok)
	}

	// The daemon is restarted; its containers live on.
	require.NoError(t, s.Close())
	require.Eventually(t, func() bool { return inv.State() != nil }, 20*time.Second, time.Millisecond)
	_, ok = inv.Entry("old")
	require.True(t, ok)
	d.mu.Lock()
	delete(d.containers, "old")
	d.mu.Unlock()
	s = serve(t, socket, d)
	require.Eventually(t, func() bool { _, ok := inv.Entry("fresh"); return ok }, 20*time.Second, 5*time.Millisecond)
	_, ok = inv.Entry("old")
	require.False(t, ok)
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, inv.Close())
	require.NoError(t, s.Close())
}

func TestDaemonThatTalksNonsense(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "dk")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("{nonsense")) })}
	go func() { _ = s.Serve(l) }()
	inv, err := New(Config{Socket: socket})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- inv.Run(ctx) }()
	require.Eventually(t, func() bool {
		return inv.State() != nil && !errors.Is(inv.State(), workload.ErrNotConnected)
	}, 20*time.Second, time.Millisecond)
	cancel()
	require.NoError(t, <-done)
	require.NoError(t, s.Close())
}
