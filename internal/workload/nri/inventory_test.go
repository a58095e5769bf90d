package nri

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/containerd/nri/pkg/adaptation"
	"github.com/containerd/nri/pkg/api"
	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/workload"
)

// runtime is the runtime's side of NRI, the library's own.
func runtime(t *testing.T, socket string, pods []*api.PodSandbox, containers []*api.Container) *adaptation.Adaptation {
	t.Helper()
	r, err := adaptation.New("test", "1",
		func(ctx context.Context, cb adaptation.SyncCB) error {
			_, err := cb(ctx, pods, containers)
			return err
		},
		func(context.Context, []*api.ContainerUpdate) ([]*api.ContainerUpdate, error) { return nil, nil },
		adaptation.WithSocketPath(socket),
		adaptation.WithPluginPath(t.TempDir()), adaptation.WithPluginConfigPath(t.TempDir()),
	)
	require.NoError(t, err)
	require.NoError(t, r.Start())
	return r
}

// relay passes connections on and can break them all, as the end of the
// runtime's process does.
type relay struct {
	mu    sync.Mutex
	conns []net.Conn
	to    string
}

func newRelay(t *testing.T, from, to string) *relay {
	t.Helper()
	l, err := net.Listen("unix", from)
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	r := &relay{to: to}
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("unix", r.to)
			if err != nil {
				_ = in.Close()
				continue
			}
			r.mu.Lock()
			r.conns = append(r.conns, in, out)
			r.mu.Unlock()
			go func() { _, _ = io.Copy(in, out); _ = in.Close() }()
			go func() { _, _ = io.Copy(out, in); _ = out.Close() }()
		}
	}()
	return r
}

func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns {
		_ = c.Close()
	}
	r.conns = nil
}

func pod(id string) *api.PodSandbox {
	return &api.PodSandbox{Id: id, Name: "shop-1", Namespace: "team", Uid: "u-" + id, Pid: 11, Labels: map[string]string{"app": "shop"}}
}

func container(id, podID string) *api.Container {
	return &api.Container{
		Id: id, PodSandboxId: podID, Name: "web", Pid: 12,
		Labels:      map[string]string{"io.kubernetes.container.name": "web"},
		Annotations: map[string]string{annotationImage: "registry/shop:1"},
		Linux:       &api.LinuxContainer{CgroupsPath: "/kubepods/podx/" + id},
	}
}

func TestInventory(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "nri") // socket paths are short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	inv, err := New(Config{Socket: socket})
	require.NoError(t, err)
	var mu sync.Mutex
	var changes []workload.Change
	inv.OnChange(func(c workload.Change) { mu.Lock(); defer mu.Unlock(); changes = append(changes, c) })

	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- inv.Run(ctx) }()
	require.Eventually(t, func() bool { return errors.Is(inv.State(), fs.ErrNotExist) }, 20*time.Second, time.Millisecond)

	behind := filepath.Join(dir, "r")
	cable := newRelay(t, socket, behind)
	stopped := container("stopped", "p1")
	stopped.State = api.ContainerState_CONTAINER_STOPPED
	r := runtime(t, behind, []*api.PodSandbox{pod("p1")}, []*api.Container{container("old", "p1"), stopped})
	require.Eventually(t, func() bool { return inv.State() == nil }, 20*time.Second, 5*time.Millisecond)
	require.Len(t, inv.Entries(), 2, "the sandbox and the running container")
	e, ok := inv.Entry("p1")
	require.True(t, ok)
	require.Equal(t, "sandbox", e.Name)

	// The call returns only when the identity is known.
	require.NoError(t, r.StartContainer(ctx, &api.StartContainerRequest{Pod: pod("p1"), Container: container("new", "p1")}))
	e, ok = inv.Entry("new")
	require.True(t, ok)
	require.Equal(t, "web", e.Name)
	require.Equal(t, "team/shop-1", e.Pod)
	require.Equal(t, "team", e.Tenant)
	require.Equal(t, "registry/shop:1", e.Image)
	require.Equal(t, "shop", e.Labels["app"])
	require.Equal(t, "u-p1", e.Labels[workload.LabelPodUID])
	require.Equal(t, 12, e.PID)
	require.Equal(t, "/kubepods/podx/new", e.Cgroup)

	require.NoError(t, r.RunPodSandbox(ctx, &api.RunPodSandboxRequest{Pod: pod("p2")}))
	_, ok = inv.Entry("p2")
	require.True(t, ok)
	_, err = r.StopContainer(ctx, &api.StopContainerRequest{Pod: pod("p1"), Container: container("new", "p1")})
	require.NoError(t, err)
	require.NoError(t, r.StopPodSandbox(ctx, &api.StopPodSandboxRequest{Pod: pod("p2")}))
	_, ok = inv.Entry("new")
	require.False(t, ok)
	require.NoError(t, r.RemoveContainer(ctx, &api.RemoveContainerRequest{Pod: pod("p1"), Container: container("old", "p1")}))
	require.Len(t, inv.Entries(), 1)

	// The runtime is restarted: register again, hear of everything again.
	r.Stop()
	cable.cut()
	require.Eventually(t, func() bool { return inv.State() != nil }, 20*time.Second, time.Millisecond)
	require.Len(t, inv.Entries(), 1, "containers outlive their runtime")
	r = runtime(t, behind, []*api.PodSandbox{pod("p3")}, nil)
	require.Eventually(t, func() bool { _, ok := inv.Entry("p3"); return ok }, 20*time.Second, 5*time.Millisecond)
	require.Len(t, inv.Entries(), 1)

	cancel()
	require.NoError(t, <-done)
	r.Stop()
	mu.Lock()
	defer mu.Unlock()
	require.NotEmpty(t, changes)
}

func TestContainerWithoutPod(t *testing.T) {
	t.Parallel()
	c := container("x", "gone")
	c.Linux.CgroupsPath = "kubepods-x.slice:cri-containerd:x"
	c.Labels = nil
	c.Image = &api.Image{Name: "by/field:2"}
	e := entry(nil, c)
	require.Equal(t, "web", e.Name)
	require.Equal(t, "by/field:2", e.Image)
	require.Empty(t, e.Cgroup)
	require.Empty(t, e.Pod)
	require.NotPanics(t, func() { entry(nil, &api.Container{}); sandbox(&api.PodSandbox{}) })
}
