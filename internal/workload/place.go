package workload

import (
	"fmt"
	"os"
	"path"
	"strings"

	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/mounts"
)

// LayerUpper names a container's own, writable layer.
const LayerUpper = "upper"

// Place is where a file is, for the process that opened it and for the host.
type Place struct {
	// Path as the workload sees it.
	Path string
	// HostPath is the backing file's path on this host, without symbolic links;
	// it was checked by device and inode number. Use it with O_NOFOLLOW and
	// check again: it was true a moment ago.
	HostPath string
	// Layer is LayerUpper, the digest of the image layer, or, if the runtime
	// does not tell digests, a name of the layer's directory. Empty for files
	// that are in no layer: on the host, or a volume.
	Layer string
	// Writable says that the file belongs to this workload and may be removed:
	// it is not in a read-only image layer, which other containers share.
	Writable bool
	// Image of the workload, for files of image layers.
	Image string
}

// Location makes the location of a finding. Bytes that are not UTF-8 are
// written as \xNN.
func (p Place) Location(w threat.Workload) threat.Location {
	return threat.Location{
		Node: w.Node, Workload: w.ID, Path: threat.Printable(p.Path), HostPath: threat.Printable(p.HostPath),
		Layer: p.Layer, Image: p.Image,
	}
}

// Locate finds the file dev/ino (of the backing file system, as fstat on the
// event's descriptor says) that process pid opened; name is the descriptor's
// path. The error wraps mounts.ErrNotFound if no mount leads to it, for
// instance because it was unlinked, and os.ErrNotExist if the process is gone;
// then only name is known.
func (r *Resolver) Locate(pid int, name string, dev, ino uint64) (Place, error) {
	m, err := r.mounts.Locate(pid, name, dev, ino)
	if err != nil {
		return Place{Path: name}, err
	}
	p := Place{Path: m.Path, HostPath: m.HostPath, Writable: true}
	switch {
	case m.Layer == "":
		return p, nil
	case m.Upper:
		p.Layer = LayerUpper
		return p, nil
	}
	p.Writable = false
	p.Layer = r.layer(pid, m, &p)
	return p, nil
}

// Holder tells whose file it is when the process that touched it is gone, as
// it may be for a written file: the container that has it in its own layer,
// else the host if it has the file under that name, else a container that
// sees it. The error wraps mounts.ErrNotFound if nobody does.
func (r *Resolver) Holder(name string, dev, ino uint64) (threat.Workload, Place, error) {
	var seen Entry
	var there Place
	for _, e := range r.Entries() {
		if e.PID <= 0 {
			continue
		}
		p, err := r.Locate(e.PID, name, dev, ino)
		if err != nil {
			continue
		}
		if p.Layer == LayerUpper {
			return r.on(e.Workload), p, nil
		}
		if seen.PID == 0 {
			seen, there = e, p
		}
	}
	p, err := r.Locate(os.Getpid(), name, dev, ino)
	if err == nil && p.Layer == "" {
		return r.host, p, nil
	}
	if seen.PID != 0 {
		return r.on(seen.Workload), there, nil
	}
	return threat.Workload{}, Place{Path: name}, fmt.Errorf("finding the owner of %q: %w", name, mounts.ErrNotFound)
}

// layer names a read-only layer and sets the image it belongs to.
func (r *Resolver) layer(pid int, m mounts.Place, p *Place) string {
	if w, err := r.Process(pid); err == nil {
		p.Image = w.Image
		if container, ok := strings.CutPrefix(w.ID, ID("")); ok {
			if e, ok := r.known(container); ok {
				return layerName(e, m.LayerName, m.Layer)
			}
		}
	}
	return directoryName(m.Layer)
}

// known returns a container from an inventory or from an earlier find.
func (r *Resolver) known(container string) (Entry, bool) {
	e, ok := r.Entry(container)
	if ok && e.Layers != nil {
		return e, true
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if f, found := r.found[container]; found {
		return f, true
	}
	return e, ok
}

// Layer is one layer of a running container.
type Layer struct {
	// Name as in Place.Layer: LayerUpper, a digest, or a name of the directory.
	Name string
	// Dir is the layer's directory on the host, without symbolic links. Its
	// files are what inspection of the container reads; a lower layer is shared
	// with other containers.
	Dir string
	// Upper is the container's own, writable layer.
	Upper bool
}

// Layers returns the layers of a running container, topmost first; none if
// its root is no overlay (then /proc/PID/root is what there is to read).
func (r *Resolver) Layers(e Entry) ([]Layer, error) {
	if e.PID <= 0 {
		return nil, fmt.Errorf("finding the layers of %s: %w", e.ID, os.ErrNotExist)
	}
	dirs, err := r.mounts.Layers(e.PID)
	if err != nil {
		return nil, fmt.Errorf("finding the layers of %s: %w", e.ID, err)
	}
	out := make([]Layer, len(dirs))
	for i, d := range dirs {
		out[i] = Layer{Name: layerName(e, d.Name, d.Dir), Dir: d.Dir, Upper: d.Upper}
		if d.Upper {
			out[i].Name = LayerUpper
		}
	}
	return out, nil
}

// layerName is a read-only layer's digest if the runtime told it.
func layerName(e Entry, dirs ...string) string {
	for _, dir := range dirs {
		if d := e.Layers[dir]; d != "" {
			return d
		}
	}
	return directoryName(dirs[len(dirs)-1])
}

// directoryName names a layer by its directory: ".../snapshots/12/fs" and
// ".../overlay2/ID/diff" become "snapshots/12" and "overlay2/ID".
func directoryName(dir string) string {
	id := path.Dir(dir)
	if base := path.Base(dir); base != "fs" && base != "diff" {
		id = dir
	}
	return path.Join(path.Base(path.Dir(id)), path.Base(id))
}

// Roots are the directories where container runtimes keep layers and volumes.
func Roots() []string {
	return []string{"/var/lib/containerd", "/var/lib/docker", "/var/lib/containers", "/var/lib/kubelet", "/var/lib/rancher"}
}

// Backing returns the host's file systems that hold files of containers: the
// ones to put marks on. Errors come together with what was found.
func (r *Resolver) Backing() ([]mounts.FileSystem, error) {
	var pids []int
	for _, e := range r.Entries() {
		if e.PID > 0 {
			pids = append(pids, e.PID)
		}
	}
	return r.mounts.Backing(append(Roots(), r.cfg.Roots...), pids)
}
