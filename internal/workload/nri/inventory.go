// Package nri is the inventory of a container runtime's Node Resource
// Interface (github.com/containerd/nri, containerd 1.7 and later, CRI-O): the
// runtime calls before it starts a container and waits, so its identity is
// known before its first instruction. Only containers made through Kubernetes'
// CRI pass here; put this inventory before containerd's, which knows the rest.
//
// The hooks run under one lock of the runtime and delay every start on the
// node: they only note what they were told. An error from a hook would stop
// the container, so none is ever returned.
package nri

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"strings"
	"sync"

	"github.com/containerd/nri/pkg/api"
	"github.com/containerd/nri/pkg/stub"

	"github.com/lazaret/lazaret/internal/workload"
)

// DefaultSocket is where runtimes offer NRI unless configured otherwise.
const DefaultSocket = api.DefaultSocketPath

// Config of an Inventory.
type Config struct {
	// Socket path; default DefaultSocket.
	Socket string
	// Name and Index of the plugin; default "lazaret" and "90": after plugins
	// that change containers.
	Name, Index string
	// Log gets changes of state; nil means no log.
	Log *slog.Logger
}

// Inventory is the containers and pod sandboxes a runtime told of.
type Inventory struct {
	workload.Table
	*workload.Link

	cfg Config
}

// New returns an inventory that connects when it runs.
func New(cfg Config) (*Inventory, error) {
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.Name == "" {
		cfg.Name = "lazaret"
	}
	if cfg.Index == "" {
		cfg.Index = "90"
	}
	return &Inventory{cfg: cfg, Link: workload.NewLink(cfg.Log, "runtime", "nri", "socket", cfg.Socket)}, nil
}

// Run is a plugin of the runtime until ctx ends. The runtime drops plugins
// that are slow and goes away itself; then Run registers again and is told of
// all containers again.
func (i *Inventory) Run(ctx context.Context) error { return i.Follow(ctx, i.session) }

var errClosed = errors.New("the runtime closed the connection")

func (i *Inventory) session(ctx context.Context, ready func()) error {
	if _, err := os.Stat(i.cfg.Socket); err != nil {
		return fmt.Errorf("looking for NRI: %w", err)
	}
	closed := make(chan struct{})
	var once sync.Once
	p := &plugin{inventory: i, ready: ready}
	s, err := stub.New(p,
		stub.WithPluginName(i.cfg.Name), stub.WithPluginIdx(i.cfg.Index),
		stub.WithOnClose(func() { once.Do(func() { close(closed) }) }),
		stub.WithLogger(logger{i.Log()}),
		stub.WithDialer(func(string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", i.cfg.Socket)
		}),
	)
	if err != nil {
		return fmt.Errorf("making the NRI plugin: %w", err)
	}
	if err := s.Start(ctx); err != nil {
		return fmt.Errorf("registering the NRI plugin: %w", err)
	}
	defer s.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return errClosed
	}
}

// plugin receives the runtime's calls of one session.
type plugin struct {
	inventory *Inventory
	ready     func()
}

// Synchronize tells what ran before the plugin was there.
func (p *plugin) Synchronize(_ context.Context, pods []*api.PodSandbox, containers []*api.Container) ([]*api.ContainerUpdate, error) {
	byID := map[string]*api.PodSandbox{}
	var out []workload.Entry
	for _, pod := range pods {
		byID[pod.GetId()] = pod
		out = append(out, sandbox(pod))
	}
	for _, c := range containers {
		if c.GetState() != api.ContainerState_CONTAINER_STOPPED {
			out = append(out, entry(byID[c.GetPodSandboxId()], c))
		}
	}
	p.inventory.Replace(out)
	p.ready()
	return nil, nil
}

// RunPodSandbox comes when a pod's own pause container starts.
func (p *plugin) RunPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.inventory.Put(sandbox(pod))
	return nil
}

// StopPodSandbox comes when a pod has stopped.
func (p *plugin) StopPodSandbox(_ context.Context, pod *api.PodSandbox) error {
	p.inventory.Remove(pod.GetId())
	return nil
}

// StartContainer comes before the container's program is executed; the
// runtime waits for the answer.
func (p *plugin) StartContainer(_ context.Context, pod *api.PodSandbox, c *api.Container) error {
	p.inventory.Put(entry(pod, c))
	return nil
}

// StopContainer comes when a container stops.
func (p *plugin) StopContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) ([]*api.ContainerUpdate, error) {
	p.inventory.Remove(c.GetId())
	return nil, nil
}

// RemoveContainer comes for containers that were never stopped, too.
func (p *plugin) RemoveContainer(_ context.Context, _ *api.PodSandbox, c *api.Container) error {
	p.inventory.Remove(c.GetId())
	return nil
}

// sandbox describes a pod's pause container.
func sandbox(pod *api.PodSandbox) workload.Entry {
	labels := podLabels(pod)
	delete(labels, workload.LabelContainer)
	return workload.Entry{
		Workload:  workload.Container("containerd", pod.GetId(), "", "", labels),
		Container: pod.GetId(), PID: int(pod.GetPid()),
	}
}

// annotationImage is how containerd's CRI plugin passes the image's name on to
// runtimes and plugins that have no field for it.
const annotationImage = "io.kubernetes.cri.image-name"

// entry describes a container; pod may be nil.
func entry(pod *api.PodSandbox, c *api.Container) workload.Entry {
	labels := podLabels(pod)
	maps.Copy(labels, c.GetLabels())
	if labels[workload.LabelContainer] == "" && pod != nil {
		labels[workload.LabelContainer] = c.GetName()
	}
	image := c.GetImage().GetName()
	if image == "" {
		image = c.GetAnnotations()[annotationImage]
	}
	group := c.GetLinux().GetCgroupsPath()
	if !strings.HasPrefix(group, "/") {
		group = "" // systemd's "slice:prefix:name"
	}
	return workload.Entry{
		Workload:  workload.Container("containerd", c.GetId(), c.GetName(), image, labels),
		Container: c.GetId(), PID: int(c.GetPid()), Cgroup: group,
	}
}

// podLabels are the pod's labels and those that name it.
func podLabels(pod *api.PodSandbox) map[string]string {
	labels := map[string]string{}
	if pod == nil {
		return labels
	}
	maps.Copy(labels, pod.GetLabels())
	labels[workload.LabelPodName] = pod.GetName()
	labels[workload.LabelPodNamespace] = pod.GetNamespace()
	labels[workload.LabelPodUID] = pod.GetUid()
	return labels
}

// logger passes the library's messages on, as details.
type logger struct{ log *slog.Logger }

func (l logger) put(ctx context.Context, level slog.Level, format string, args []any) {
	if ctx == nil {
		ctx = context.Background()
	}
	if l.log.Enabled(ctx, level) {
		l.log.Log(ctx, level, "nri library", "text", fmt.Sprintf(format, args...))
	}
}

func (l logger) Debugf(ctx context.Context, format string, args ...any) {
	l.put(ctx, slog.LevelDebug, format, args)
}

func (l logger) Infof(ctx context.Context, format string, args ...any) {
	l.put(ctx, slog.LevelDebug, format, args)
}

func (l logger) Warnf(ctx context.Context, format string, args ...any) {
	l.put(ctx, slog.LevelWarn, format, args)
}

func (l logger) Errorf(ctx context.Context, format string, args ...any) {
	l.put(ctx, slog.LevelError, format, args)
}
