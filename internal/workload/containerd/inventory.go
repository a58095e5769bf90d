// Package containerd is the inventory of a containerd daemon: containers of
// all its namespaces with their names, images, pods and layers, kept up to date
// by its events. It speaks the gRPC API (github.com/containerd/containerd/api,
// versions 1.6 to 2.x).
//
// Events come after the fact and nothing holds the container until they were
// seen; Find answers for a container whose event has not come yet.
package containerd

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/lazaret/lazaret/internal/workload"
	"github.com/lazaret/lazaret/internal/workload/cgroup"
)

// DefaultSocket is where containerd listens unless configured otherwise.
const DefaultSocket = "/run/containerd/containerd.sock"

// Config of an Inventory.
type Config struct {
	// Socket path; default DefaultSocket.
	Socket string
	// Log gets connection changes; nil means no log.
	Log *slog.Logger
}

// Inventory is one containerd's running containers. Ids are unique only within
// a containerd namespace; of two containers with one id the newer is listed.
type Inventory struct {
	workload.Table
	*workload.Link

	cfg        Config
	conn       *grpc.ClientConn
	containers containersapi.ContainersClient
	content    contentapi.ContentClient
	events     eventsapi.EventsClient
	images     imagesapi.ImagesClient
	namespaces namespacesapi.NamespacesClient
	snapshots  snapshotsapi.SnapshotsClient
	tasks      tasksapi.TasksClient

	layers layerCache
}

// New returns an inventory that connects when it runs or is asked; the daemon
// need not be there yet. The caller calls Close.
func New(cfg Config) (*Inventory, error) {
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	socket, err := filepath.Abs(cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("finding containerd's socket: %w", err)
	}
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))
	if err != nil {
		return nil, fmt.Errorf("preparing the connection to containerd: %w", err)
	}
	return &Inventory{
		cfg: cfg, conn: conn, Link: workload.NewLink(cfg.Log, "runtime", "containerd", "socket", socket),
		containers: containersapi.NewContainersClient(conn),
		content:    contentapi.NewContentClient(conn),
		events:     eventsapi.NewEventsClient(conn),
		images:     imagesapi.NewImagesClient(conn),
		namespaces: namespacesapi.NewNamespacesClient(conn),
		snapshots:  snapshotsapi.NewSnapshotsClient(conn),
		tasks:      tasksapi.NewTasksClient(conn),
	}, nil
}

// Close ends the connection.
func (i *Inventory) Close() error { return i.conn.Close() }

const (
	resyncSoon  = time.Second      // events between subscription and listing may be lost
	resyncLater = 60 * time.Second // whatever else went wrong
	callTimeout = 10 * time.Second
)

// Run follows the daemon until ctx ends. While it is away the containers last
// seen stay listed: they outlive their daemon.
func (i *Inventory) Run(ctx context.Context) error { return i.Follow(ctx, i.session) }

// session subscribes, lists, and follows events until the connection breaks.
func (i *Inventory) session(ctx context.Context, ready func()) error {
	if _, err := os.Stat(i.cfg.Socket); err != nil {
		return fmt.Errorf("looking for containerd: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := i.events.Subscribe(ctx, &eventsapi.SubscribeRequest{Filters: topics})
	if err != nil {
		return fmt.Errorf("subscribing to containerd's events: %w", err)
	}
	incoming := make(chan any, 64)
	go receive(ctx, stream, incoming)
	if err := i.sync(ctx); err != nil {
		return err
	}
	ready()
	again := time.NewTimer(resyncSoon)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case e := <-incoming:
			if err, failed := e.(error); failed {
				return fmt.Errorf("receiving containerd's events: %w", err)
			}
			i.handle(ctx, e)
		case <-again.C:
			if err := i.sync(ctx); err != nil {
				return err
			}
			again.Reset(resyncLater)
		}
	}
}

// in returns a context for calls in a containerd namespace.
func in(ctx context.Context, namespace string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, "containerd-namespace", namespace)
}

func (i *Inventory) namespaceNames(ctx context.Context) ([]string, error) {
	res, err := i.namespaces.List(ctx, &namespacesapi.ListNamespacesRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing containerd's namespaces: %w", err)
	}
	var out []string
	for _, n := range res.Namespaces {
		out = append(out, n.Name)
	}
	return out, nil
}

// Find asks the daemon about a container. It implements workload.Finder.
func (i *Inventory) Find(ctx context.Context, ref cgroup.Ref) (workload.Entry, bool) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	names := []string{ref.Namespace}
	if ref.Namespace == "" {
		var err error
		if names, err = i.namespaceNames(ctx); err != nil {
			return workload.Entry{}, false
		}
	}
	for _, ns := range names {
		if c := i.get(ctx, ns, ref); c != nil {
			return i.entry(ctx, ns, c, 0), true
		}
	}
	return workload.Entry{}, false
}

// get finds a container by id, or by its control group if that was chosen by
// hand and so does not tell the id.
func (i *Inventory) get(ctx context.Context, ns string, ref cgroup.Ref) *containersapi.Container {
	res, err := i.containers.Get(in(ctx, ns), &containersapi.GetContainerRequest{ID: ref.ID})
	if err == nil && (!ref.Weak || specCgroup(res.Container) == ref.Path) {
		return res.Container
	}
	if !ref.Weak {
		return nil
	}
	list, err := i.containers.List(in(ctx, ns), &containersapi.ListContainersRequest{})
	if err != nil {
		return nil
	}
	for _, c := range list.Containers {
		if g := specCgroup(c); g != "" && g == ref.Path {
			return c
		}
	}
	return nil
}
