package target

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

// Containers finds running containers.
type Containers interface {
	// Root returns a process whose root directory is the container's, by name
	// or id of the container.
	Root(ctx context.Context, name string) (pid int, w threat.Workload, err error)
}

// Images opens container images.
type Images interface {
	// Layers returns the layers of the image (OCI layout or tar) at a path; done
	// gives up what is held for them.
	Layers(ctx context.Context, path string) (layers []Layer, done func() error, err error)
}

// Resolver turns requests into sources.
type Resolver struct {
	// Containers and Images may be nil: then such requests are errors.
	Containers Containers
	Images     Images
	// Stdin is what the path "-" means; nil: "-" is an error.
	Stdin io.Reader
	// Temp is the directory for temporary copies; default os.TempDir().
	Temp string
	// OneFileSystem leaves out what is mounted below the paths.
	OneFileSystem bool
	// Host is the workload id of paths; default "host".
	Host string
	// Proc is where processes are found; default /proc.
	Proc string
}

// Sources resolves a request. Paths that do not exist are no error here: the
// scan reports them. The caller calls done after the scan.
func (r *Resolver) Sources(ctx context.Context, q api.ScanRequest) (sources []Source, done func() error, err error) {
	var closers []func() error
	done = func() error {
		var errs []error
		for _, c := range closers {
			errs = append(errs, c())
		}
		return errors.Join(errs...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, done())
		}
	}()
	host := r.Host
	if host == "" {
		host = "host"
	}
	for _, p := range q.Paths {
		if p != "-" {
			sources = append(sources, &Tree{Path: p, Location: threat.Location{Workload: host}, OneFileSystem: r.OneFileSystem})
			continue
		}
		if r.Stdin == nil {
			return nil, done, errors.New(`reading standard input: "-" works only without the daemon`)
		}
		sources = append(sources, &Stream{Reader: r.Stdin, Dir: r.Temp, Location: threat.Location{Path: "-"}})
	}
	if q.Container != "" {
		if r.Containers == nil {
			return nil, done, fmt.Errorf("finding container %q: no container runtime is known here", q.Container)
		}
		pid, w, err := r.Containers.Root(ctx, q.Container)
		if err != nil {
			return nil, done, fmt.Errorf("finding container %q: %w", q.Container, err)
		}
		proc := r.Proc
		if proc == "" {
			proc = "/proc"
		}
		sources = append(sources, &Tree{
			Path: filepath.Join(proc, fmt.Sprint(pid), "root"), Shown: "/",
			Location: threat.Location{Workload: w.ID, Image: w.Image}, OneFileSystem: r.OneFileSystem, Note: true,
		})
	}
	if q.Image != "" {
		if r.Images == nil {
			return nil, done, fmt.Errorf("opening image %q: images cannot be opened here", q.Image)
		}
		layers, end, err := r.Images.Layers(ctx, q.Image)
		if err != nil {
			return nil, done, fmt.Errorf("opening image %q: %w", q.Image, err)
		}
		closers = append(closers, end)
		sources = append(sources, &Image{Name: q.Image, Layers: layers, Limits: LayerLimits()})
	}
	if len(sources) == 0 {
		return nil, done, errors.New("the scan names no target: give paths, a container or an image")
	}
	return sources, done, nil
}
