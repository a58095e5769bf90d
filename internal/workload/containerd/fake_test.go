package containerd

import (
	"context"
	"net"
	"sync"
	"testing"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	namespacesapi "github.com/containerd/containerd/api/services/namespaces/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// daemon is a fake containerd: containers by namespace and id.
type daemon struct {
	mu         sync.Mutex
	containers map[string]map[string]*containersapi.Container
	tasks      map[string]*task.Process // by id
	blobs      map[string][]byte
	target     string
	parents    map[string]string
	lower      string
	events     chan *types.Envelope
}

func newDaemon() *daemon {
	return &daemon{
		containers: map[string]map[string]*containersapi.Container{}, tasks: map[string]*task.Process{},
		blobs: map[string][]byte{}, parents: map[string]string{}, events: make(chan *types.Envelope),
	}
}

func (d *daemon) set(ns string, c *containersapi.Container, pid uint32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.containers[ns] == nil {
		d.containers[ns] = map[string]*containersapi.Container{}
	}
	d.containers[ns][c.ID] = c
	if pid != 0 {
		d.tasks[c.ID] = &task.Process{ID: c.ID, Pid: pid, Status: task.Status_RUNNING}
	}
}

func (d *daemon) say(ns, name string, m proto.Message) {
	b, err := proto.Marshal(m)
	if err != nil {
		panic(err)
	}
	d.events <- &types.Envelope{Namespace: ns, Event: &anypb.Any{TypeUrl: "containerd.events." + name, Value: b}}
}

// serve starts the daemon on a socket; the result stops it.
func (d *daemon) serve(t *testing.T, socket string) *grpc.Server {
	t.Helper()
	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	s := grpc.NewServer()
	containersapi.RegisterContainersServer(s, containers{d: d})
	contentapi.RegisterContentServer(s, content{d: d})
	eventsapi.RegisterEventsServer(s, eventStream{d: d})
	imagesapi.RegisterImagesServer(s, images{d: d})
	namespacesapi.RegisterNamespacesServer(s, namespaces{d: d})
	snapshotsapi.RegisterSnapshotsServer(s, snapshots{d: d})
	tasksapi.RegisterTasksServer(s, tasks{d: d})
	go func() { _ = s.Serve(l) }()
	return s
}

func namespaceOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("containerd-namespace"); len(v) == 1 {
		return v[0]
	}
	return ""
}

type containers struct {
	containersapi.UnimplementedContainersServer
	d *daemon
}

func (s containers) Get(ctx context.Context, r *containersapi.GetContainerRequest) (*containersapi.GetContainerResponse, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	c, ok := s.d.containers[namespaceOf(ctx)][r.ID]
	if !ok {
		return nil, status.Error(codes.NotFound, "no such container")
	}
	return &containersapi.GetContainerResponse{Container: c}, nil
}

func (s containers) List(ctx context.Context, _ *containersapi.ListContainersRequest) (*containersapi.ListContainersResponse, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	out := &containersapi.ListContainersResponse{}
	for _, c := range s.d.containers[namespaceOf(ctx)] {
		out.Containers = append(out.Containers, c)
	}
	return out, nil
}

type content struct {
	contentapi.UnimplementedContentServer
	d *daemon
}

func (s content) Read(r *contentapi.ReadContentRequest, stream contentapi.Content_ReadServer) error {
	s.d.mu.Lock()
	b, ok := s.d.blobs[r.Digest]
	s.d.mu.Unlock()
	if !ok {
		return status.Error(codes.NotFound, "no such blob")
	}
	for len(b) > 0 { // in small pieces
		n := min(len(b), 1<<20)
		if err := stream.Send(&contentapi.ReadContentResponse{Data: b[:n]}); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

type eventStream struct {
	eventsapi.UnimplementedEventsServer
	d *daemon
}

func (s eventStream) Subscribe(_ *eventsapi.SubscribeRequest, stream eventsapi.Events_SubscribeServer) error {
	for {
		select {
		case e := <-s.d.events:
			if err := stream.Send(e); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

type images struct {
	imagesapi.UnimplementedImagesServer
	d *daemon
}

func (s images) Get(context.Context, *imagesapi.GetImageRequest) (*imagesapi.GetImageResponse, error) {
	if s.d.target == "" {
		return nil, status.Error(codes.NotFound, "no such image")
	}
	return &imagesapi.GetImageResponse{Image: &imagesapi.Image{Target: &types.Descriptor{Digest: s.d.target}}}, nil
}

type namespaces struct {
	namespacesapi.UnimplementedNamespacesServer
	d *daemon
}

func (s namespaces) List(context.Context, *namespacesapi.ListNamespacesRequest) (*namespacesapi.ListNamespacesResponse, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	out := &namespacesapi.ListNamespacesResponse{}
	for ns := range s.d.containers {
		out.Namespaces = append(out.Namespaces, &namespacesapi.Namespace{Name: ns})
	}
	return out, nil
}

type snapshots struct {
	snapshotsapi.UnimplementedSnapshotsServer
	d *daemon
}

func (s snapshots) Stat(_ context.Context, r *snapshotsapi.StatSnapshotRequest) (*snapshotsapi.StatSnapshotResponse, error) {
	return &snapshotsapi.StatSnapshotResponse{Info: &snapshotsapi.Info{Name: r.Key, Parent: s.d.parents[r.Key]}}, nil
}

func (s snapshots) Mounts(context.Context, *snapshotsapi.MountsRequest) (*snapshotsapi.MountsResponse, error) {
	return &snapshotsapi.MountsResponse{Mounts: []*types.Mount{{
		Type: "overlay", Source: "overlay", Options: []string{"index=off", "workdir=/s/9/work", "upperdir=/s/9/fs", "lowerdir=" + s.d.lower},
	}}}, nil
}

type tasks struct {
	tasksapi.UnimplementedTasksServer
	d *daemon
}

func (s tasks) List(ctx context.Context, _ *tasksapi.ListTasksRequest) (*tasksapi.ListTasksResponse, error) {
	s.d.mu.Lock()
	defer s.d.mu.Unlock()
	out := &tasksapi.ListTasksResponse{}
	for id := range s.d.containers[namespaceOf(ctx)] {
		if t, ok := s.d.tasks[id]; ok {
			out.Tasks = append(out.Tasks, t)
		}
	}
	return out, nil
}
