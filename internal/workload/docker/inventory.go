// Package docker is the inventory of a Docker daemon, over its Engine API
// (also spoken by Podman's service). Docker's containers are containerd's too,
// in the namespace "moby" and without names or images there: put this
// inventory before containerd's.
package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/lazaret/lazaret/internal/workload"
	"github.com/lazaret/lazaret/internal/workload/cgroup"
)

// DefaultSocket is where the daemon listens unless configured otherwise.
const DefaultSocket = "/var/run/docker.sock"

// Config of an Inventory.
type Config struct {
	// Socket path; default DefaultSocket.
	Socket string
	// Runtime is the name in workloads: "docker" (default) or "podman".
	Runtime string
	// Log gets changes of state; nil means no log.
	Log *slog.Logger
}

// Inventory is one daemon's running containers.
type Inventory struct {
	workload.Table
	*workload.Link

	cfg    Config
	client *client

	mu     sync.Mutex
	layers map[string][]string // image id → layer digests; images never change
}

// New returns an inventory that connects when it runs or is asked; the daemon
// need not be there yet. The caller calls Close.
func New(cfg Config) (*Inventory, error) {
	if cfg.Socket == "" {
		cfg.Socket = DefaultSocket
	}
	if cfg.Runtime == "" {
		cfg.Runtime = "docker"
	}
	return &Inventory{
		cfg: cfg, client: newClient(cfg.Socket), layers: map[string][]string{},
		Link: workload.NewLink(cfg.Log, "runtime", cfg.Runtime, "socket", cfg.Socket),
	}, nil
}

// Close ends idle connections.
func (i *Inventory) Close() error {
	i.client.close()
	return nil
}

// Run follows the daemon until ctx ends. While it is away the containers last
// seen stay listed.
func (i *Inventory) Run(ctx context.Context) error { return i.Follow(ctx, i.session) }

const resync = 60 * time.Second

func (i *Inventory) session(ctx context.Context, ready func()) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if _, err := os.Stat(i.cfg.Socket); err != nil {
		return fmt.Errorf("looking for %s: %w", i.cfg.Runtime, err)
	}
	// The reply to the subscription comes before the list is asked for, so no
	// start can fall between the two.
	body, err := i.client.events(ctx)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	incoming, broken := make(chan event, 64), make(chan error, 1)
	go func() {
		for d := json.NewDecoder(body); ; {
			var e event
			if err := d.Decode(&e); err != nil {
				broken <- err
				return
			}
			select {
			case incoming <- e:
			case <-ctx.Done():
				return
			}
		}
	}()
	tick := time.NewTicker(resync)
	defer tick.Stop()
	if err := i.sync(ctx); err != nil {
		return err
	}
	ready()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-broken:
			return fmt.Errorf("receiving events: %w", err)
		case e := <-incoming:
			i.handle(ctx, e)
		case <-tick.C:
			if err := i.sync(ctx); err != nil {
				return err
			}
		}
	}
}

func (i *Inventory) handle(ctx context.Context, e event) {
	switch e.Action {
	case "die", "destroy":
		i.Remove(e.Actor.ID)
	case "start", "rename", "update":
		c, err := i.client.inspect(ctx, e.Actor.ID)
		switch {
		case err == nil && c.State.Running:
			i.Put(i.entry(ctx, c))
		case err == nil || errors.Is(err, errNotFound):
			i.Remove(e.Actor.ID)
		default:
			i.Log().Warn("reading a container's description", slog.String("container", e.Actor.ID), slog.Any("error", err))
		}
	}
}

func (i *Inventory) sync(ctx context.Context) error {
	ids, err := i.client.running(ctx)
	if err != nil {
		return err
	}
	var out []workload.Entry
	for _, id := range ids {
		c, err := i.client.inspect(ctx, id)
		if errors.Is(err, errNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if c.State.Running {
			out = append(out, i.entry(ctx, c))
		}
	}
	i.Replace(out)
	return nil
}

func (i *Inventory) entry(ctx context.Context, c container) workload.Entry {
	name := strings.TrimPrefix(c.Name, "/")
	return workload.Entry{
		Workload:  workload.Container(i.cfg.Runtime, c.ID, name, c.Config.Image, c.Config.Labels),
		Container: c.ID, PID: c.State.PID, Layers: i.layersOf(ctx, c),
	}
}

// layersOf maps layer directories to the digests of the uncompressed layers:
// the daemon does not keep others. LowerDir lists the topmost first, above all
// image layers the one that the daemon itself makes ("ID-init").
func (i *Inventory) layersOf(ctx context.Context, c container) map[string]string {
	var dirs []string
	for d := range strings.SplitSeq(c.GraphDriver.Data.LowerDir, ":") {
		if d != "" && !strings.HasSuffix(d, "-init/diff") {
			dirs = append(dirs, d)
		}
	}
	if len(dirs) == 0 {
		return nil
	}
	digests, err := i.digests(ctx, c.Image)
	if err != nil || len(digests) != len(dirs) {
		return nil
	}
	out := map[string]string{}
	for n, dir := range dirs {
		out[dir] = digests[len(digests)-1-n]
	}
	return out
}

const maxImages = 4096

func (i *Inventory) digests(ctx context.Context, image string) ([]string, error) {
	i.mu.Lock()
	d, ok := i.layers[image]
	i.mu.Unlock()
	if ok {
		return d, nil
	}
	d, err := i.client.diffIDs(ctx, image)
	if err != nil {
		return nil, err
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if len(i.layers) >= maxImages {
		clear(i.layers)
	}
	i.layers[image] = d
	return d, nil
}

// Find asks the daemon about a container. It implements workload.Finder.
func (i *Inventory) Find(ctx context.Context, ref cgroup.Ref) (workload.Entry, bool) {
	if ref.Weak || (ref.Runtime != "" && ref.Runtime != i.cfg.Runtime) {
		return workload.Entry{}, false
	}
	c, err := i.client.inspect(ctx, ref.ID)
	if err != nil || c.ID != ref.ID {
		return workload.Entry{}, false
	}
	return i.entry(ctx, c), true
}
