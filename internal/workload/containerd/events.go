package containerd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	events "github.com/containerd/containerd/api/events"
	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	eventsapi "github.com/containerd/containerd/api/services/events/v1"
	tasksapi "github.com/containerd/containerd/api/services/tasks/v1"
	"github.com/containerd/containerd/api/types"
	"github.com/containerd/containerd/api/types/task"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/lazaret/lazaret/internal/workload"
)

// topics are the events that change what is running or how it is called.
var topics = []string{
	`topic=="/tasks/create"`, `topic=="/tasks/start"`, `topic=="/tasks/exit"`, `topic=="/tasks/delete"`,
	`topic=="/containers/update"`, `topic=="/containers/delete"`,
}

// receive passes events on until the stream ends, then the error.
func receive(ctx context.Context, stream eventsapi.Events_SubscribeClient, out chan<- any) {
	for {
		var next any
		envelope, err := stream.Recv()
		if next = envelope; err != nil {
			next = err
		}
		select {
		case out <- next:
		case <-ctx.Done():
			return
		}
		if err != nil {
			return
		}
	}
}

// handle applies one event. Events that cannot be read are not fatal: the next
// listing repairs what they would have told.
func (i *Inventory) handle(ctx context.Context, e any) {
	envelope, ok := e.(*types.Envelope)
	if !ok || envelope.Event == nil {
		return
	}
	name := envelope.Event.TypeUrl[strings.LastIndexByte(envelope.Event.TypeUrl, '/')+1:]
	decode := func(m proto.Message) bool { return proto.Unmarshal(envelope.Event.Value, m) == nil }
	ns := envelope.Namespace
	switch name {
	case "containerd.events.TaskCreate":
		if m := new(events.TaskCreate); decode(m) {
			i.started(ctx, ns, m.ContainerID, int(m.Pid))
		}
	case "containerd.events.TaskStart":
		if m := new(events.TaskStart); decode(m) {
			i.started(ctx, ns, m.ContainerID, int(m.Pid))
		}
	case "containerd.events.TaskExit":
		// Exits of further processes (exec) have an id of their own.
		if m := new(events.TaskExit); decode(m) && m.ID == m.ContainerID {
			i.Remove(m.ContainerID)
		}
	case "containerd.events.TaskDelete":
		if m := new(events.TaskDelete); decode(m) && (m.ID == "" || m.ID == m.ContainerID) {
			i.Remove(m.ContainerID)
		}
	case "containerd.events.ContainerDelete":
		if m := new(events.ContainerDelete); decode(m) {
			i.Remove(m.ID)
		}
	case "containerd.events.ContainerUpdate":
		if m := new(events.ContainerUpdate); decode(m) {
			if old, running := i.Entry(m.ID); running {
				i.started(ctx, ns, m.ID, old.PID)
			}
		}
	}
}

// started reads a container's description and lists it.
func (i *Inventory) started(ctx context.Context, ns, id string, pid int) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	res, err := i.containers.Get(in(ctx, ns), &containersapi.GetContainerRequest{ID: id})
	if err != nil {
		if status.Code(err) != codes.NotFound {
			i.Log().Warn("reading a container's description", slog.String("container", id), slog.Any("error", err))
		}
		return
	}
	i.Put(i.entry(ctx, ns, res.Container, pid))
}

// sync makes the table hold what runs now.
func (i *Inventory) sync(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 3*callTimeout)
	defer cancel()
	names, err := i.namespaceNames(ctx)
	if err != nil {
		return err
	}
	var out []workload.Entry
	for _, ns := range names {
		entries, err := i.list(ctx, ns)
		if err != nil {
			return err
		}
		out = append(out, entries...)
	}
	i.Replace(out)
	return nil
}

// list returns the containers of a namespace that have a live task.
func (i *Inventory) list(ctx context.Context, ns string) ([]workload.Entry, error) {
	tasks, err := i.tasks.List(in(ctx, ns), &tasksapi.ListTasksRequest{})
	if err != nil {
		return nil, fmt.Errorf("listing tasks in containerd namespace %s: %w", ns, err)
	}
	pids := map[string]int{}
	for _, t := range tasks.Tasks {
		if t.Status != task.Status_STOPPED && t.Status != task.Status_UNKNOWN {
			// Versions differ in which field has the container's id.
			id := t.ContainerID
			if id == "" {
				id = t.ID
			}
			pids[id] = int(t.Pid)
		}
	}
	if len(pids) == 0 {
		return nil, nil
	}
	res, err := i.containers.List(in(ctx, ns), &containersapi.ListContainersRequest{})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listing containers in containerd namespace %s", ns), err)
	}
	pods := podLabels(res.Containers)
	var out []workload.Entry
	for _, c := range res.Containers {
		if pid, ok := pids[c.ID]; ok {
			out = append(out, i.entryWith(ctx, ns, c, pid, pods[c.Labels[workload.LabelPodUID]]))
		}
	}
	return out, nil
}
