package containerd

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	events "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	"github.com/containerd/containerd/api/types/task"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lazaret/lazaret/internal/workload"
	"github.com/lazaret/lazaret/internal/workload/cgroup"
	"github.com/lazaret/lazaret/internal/workload/image"
)

const podUID = "11112222-3333-4444-5555-666677778888"

func spec(group string) *anypb.Any {
	b, _ := json.Marshal(map[string]any{"linux": map[string]string{"cgroupsPath": group}})
	return &anypb.Any{TypeUrl: "types.containerd.io/opencontainers/runtime-spec/1/Spec", Value: b}
}

func kube(id, kind, name string) *containersapi.Container {
	labels := map[string]string{
		workload.LabelPodName: "shop-1", workload.LabelPodNamespace: "team", workload.LabelPodUID: podUID, labelKind: kind,
	}
	if kind == "sandbox" {
		labels["app"] = "shop"
	} else {
		labels[workload.LabelContainer] = name
	}
	return &containersapi.Container{ID: id, Image: "registry/shop:1", Labels: labels, Spec: spec("kubepods-x.slice:cri-containerd:" + id)}
}

func start(t *testing.T) (*Inventory, string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cd")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	inv, err := New(Config{Socket: filepath.Join(dir, "s")})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- inv.Run(ctx) }()
	t.Cleanup(func() { cancel(); require.NoError(t, <-done); require.NoError(t, inv.Close()) })
	return inv, filepath.Join(dir, "s")
}

func eventually(t *testing.T, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 20*time.Second, 2*time.Millisecond)
}

func listed(inv *Inventory, id string) func() bool {
	return func() bool { _, ok := inv.Entry(id); return ok }
}

func TestInventory(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("ab", 32)
	d := newDaemon()
	d.set("k8s.io", kube("pod", "sandbox", ""), 10)
	d.set("k8s.io", kube("app", "container", "web"), 11)
	d.set("moby", &containersapi.Container{ID: long}, 12)
	d.set("default", &containersapi.Container{ID: "t1", Image: "busybox", Spec: spec("/default/t1")}, 13)
	d.set("default", &containersapi.Container{ID: "no-task"}, 0)
	d.set("default", &containersapi.Container{ID: "stopped"}, 14)
	d.tasks["stopped"].Status = task.Status_STOPPED
	d.set("empty", &containersapi.Container{ID: "nothing"}, 0)
	inv, socket := start(t)
	eventually(t, func() bool { return errors.Is(inv.State(), fs.ErrNotExist) })
	s := d.serve(t, socket)
	eventually(t, func() bool { return inv.State() == nil })

	require.Len(t, inv.Entries(), 4)
	e, _ := inv.Entry("app")
	require.Equal(t, "web", e.Name)
	require.Equal(t, "team/shop-1", e.Pod)
	require.Equal(t, "shop", e.Labels["app"], "labels of the pod")
	require.Equal(t, "registry/shop:1", e.Image)
	require.Equal(t, 11, e.PID)
	require.Empty(t, e.Cgroup, "systemd's form is no path")
	e, _ = inv.Entry("pod")
	require.Equal(t, "sandbox", e.Name)
	e, _ = inv.Entry(long)
	require.Equal(t, "docker", e.Runtime)
	require.Equal(t, long[:12], e.Name)
	e, _ = inv.Entry("t1")
	require.Equal(t, "/default/t1", e.Cgroup)

	// Started, with the pod's labels.
	d.set("k8s.io", kube("app2", "container", "side"), 20)
	d.say("k8s.io", "TaskCreate", &events.TaskCreate{ContainerID: "app2", Pid: 20})
	eventually(t, listed(inv, "app2"))
	e, _ = inv.Entry("app2")
	require.Equal(t, "shop", e.Labels["app"])
	require.Equal(t, 20, e.PID)
	d.say("k8s.io", "TaskStart", &events.TaskStart{ContainerID: "removed-already", Pid: 9})
	d.say("k8s.io", "TaskExit", &events.TaskExit{ContainerID: "app2", ID: "an-exec"})
	d.say("k8s.io", "Strange", &events.TaskExit{})
	d.set("k8s.io", &containersapi.Container{ID: "app2", Image: "registry/shop:2", Labels: map[string]string{"new": "label"}}, 20)
	d.say("k8s.io", "ContainerUpdate", &events.ContainerUpdate{ID: "app2"})
	eventually(t, func() bool { e, _ := inv.Entry("app2"); return e.Labels["new"] == "label" && e.PID == 20 })
	d.mu.Lock()
	d.tasks["app2"].Status = task.Status_STOPPED
	d.tasks["t1"].Status = task.Status_STOPPED
	d.mu.Unlock()
	d.say("k8s.io", "TaskExit", &events.TaskExit{ContainerID: "app2", ID: "app2"})
	eventually(t, func() bool { return !listed(inv, "app2")() })
	d.say("default", "TaskDelete", &events.TaskDelete{ContainerID: "t1"})
	eventually(t, func() bool { return !listed(inv, "t1")() })

	// The daemon ends: what ran still runs. It returns: what ran is listed.
	s.Stop()
	eventually(t, func() bool { return inv.State() != nil })
	require.True(t, listed(inv, "app")())
	d.mu.Lock()
	delete(d.containers["k8s.io"], "app")
	d.mu.Unlock()
	s = d.serve(t, socket)
	eventually(t, func() bool { return inv.State() == nil && !listed(inv, "app")() })
	s.Stop()
}

func TestFind(t *testing.T) {
	t.Parallel()
	d := newDaemon()
	d.set("default", &containersapi.Container{ID: "t1", Spec: spec("/default/t1")}, 0)
	d.set("other", &containersapi.Container{ID: "hand", Spec: spec("/own/choice")}, 0)
	d.set("k8s.io", &containersapi.Container{ID: "strong"}, 0)
	inv, socket := start(t)
	s := d.serve(t, socket)
	defer s.Stop()
	eventually(t, func() bool { return inv.State() == nil })
	for _, c := range []struct {
		ref  cgroup.Ref
		want string
	}{
		{cgroup.Ref{Namespace: "default", ID: "t1", Path: "/default/t1", Weak: true}, "t1"},
		{cgroup.Ref{Namespace: "default", ID: "t1", Path: "/default/t1/../x", Weak: true}, ""},
		{cgroup.Ref{ID: "choice", Path: "/own/choice", Weak: true}, "hand"},
		{cgroup.Ref{ID: "strong"}, "strong"},
		{cgroup.Ref{Namespace: "nowhere", ID: "strong"}, ""},
		{cgroup.Ref{ID: "unknown"}, ""},
	} {
		e, ok := inv.Find(t.Context(), c.ref)
		require.Equal(t, c.want != "", ok, "%+v", c.ref)
		require.Equal(t, c.want, e.Container)
	}
	s.Stop()
	_, ok := inv.Find(t.Context(), cgroup.Ref{ID: "strong"})
	require.False(t, ok, "the daemon is away")
}

// blob stores a document and returns its digest.
func (d *daemon) blob(v any) string {
	b, ok := v.([]byte)
	if !ok {
		b, _ = json.Marshal(v)
	}
	sum := sha256.Sum256(b)
	digest := "sha256:" + hex.EncodeToString(sum[:])
	d.blobs[digest] = b
	return digest
}

func TestLayers(t *testing.T) {
	t.Parallel()
	type m = map[string]any
	d := newDaemon()
	diffs := []string{"sha256:one", "sha256:two"}
	chain := image.ChainIDs(diffs)
	config := d.blob(m{"rootfs": m{"diff_ids": diffs}})
	manifest := d.blob(m{"config": m{"digest": config}, "layers": []m{{"digest": "sha256:gz1"}, {"digest": "sha256:gz2"}}})
	other := d.blob(m{"config": m{"digest": d.blob(m{"rootfs": m{"diff_ids": []string{"sha256:x"}}})}, "layers": []m{{"digest": "sha256:gzx"}}})
	d.target = d.blob(m{"manifests": []m{{"digest": "sha256:" + strings.Repeat("0", 64)}, {"digest": other}, {"digest": manifest}}})
	d.parents = map[string]string{"key": chain[1], chain[1]: chain[0]}
	d.lower = "/s/2/fs:/s/1/fs"
	c := &containersapi.Container{ID: "t1", Image: "i", Snapshotter: "overlayfs", SnapshotKey: "key"}
	inv, socket := start(t)
	s := d.serve(t, socket)
	defer s.Stop()
	eventually(t, func() bool { return inv.State() == nil })
	for range 2 { // asked, cached
		require.Equal(t, map[string]string{"/s/2/fs": "sha256:gz2", "/s/1/fs": "sha256:gz1"}, inv.layersOf(t.Context(), "default", c))
	}
	require.Nil(t, inv.layersOf(t.Context(), "default", &containersapi.Container{ID: "no snapshot"}))

	// What does not fit gives no digests rather than wrong ones.
	d.lower = "/s/2/fs"
	require.Nil(t, inv.layersOf(t.Context(), "default", c))
	d.lower = "/s/2/fs:/s/1/fs"
	d.target = other
	require.Nil(t, inv.layersOf(t.Context(), "default", c))
	d.target = d.blob([]byte("nonsense"))
	require.Nil(t, inv.layersOf(t.Context(), "default", c))
	d.target = d.blob(make([]byte, image.MaxDocument+1))
	require.Nil(t, inv.layersOf(t.Context(), "default", c))
	d.target = ""
	require.Nil(t, inv.layersOf(t.Context(), "default", c))
	d.parents["loop"] = "loop"
	require.Nil(t, inv.layersOf(t.Context(), "default", &containersapi.Container{Snapshotter: "overlayfs", SnapshotKey: "loop"}))
}
