package containerd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"sync"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"
	contentapi "github.com/containerd/containerd/api/services/content/v1"
	imagesapi "github.com/containerd/containerd/api/services/images/v1"
	snapshotsapi "github.com/containerd/containerd/api/services/snapshots/v1"

	"github.com/lazaret/lazaret/internal/workload/image"
	"github.com/lazaret/lazaret/internal/workload/mounts"
)

// layerCache keeps what never changes: the parent of a committed snapshot and
// the layer digests of an image by its digest.
type layerCache struct {
	mu      sync.Mutex
	parents map[string]string            // "namespace/snapshotter/name" → parent
	digests map[string]map[string]string // "namespace/image digest" → chain id → layer digest
}

const (
	maxChain  = 512
	maxCached = 16384
)

// layersOf maps the directories of a container's image layers to the layers'
// digests; nil if that cannot be found out (other snapshotter, image removed),
// in which case layers are named by directory.
func (i *Inventory) layersOf(ctx context.Context, ns string, c *containersapi.Container) map[string]string {
	if c.SnapshotKey == "" {
		return nil
	}
	dirs, err := i.lowerDirs(ctx, ns, c)
	if err != nil || len(dirs) == 0 {
		return nil
	}
	chain, err := i.chain(ctx, ns, c.Snapshotter, c.SnapshotKey)
	if err != nil || len(chain) != len(dirs) {
		return nil
	}
	digests, err := i.imageDigests(ctx, ns, c.Image, chain[0])
	if err != nil {
		return nil
	}
	out := map[string]string{}
	for n, dir := range dirs {
		if d := digests[chain[n]]; d != "" {
			out[dir] = d
		}
	}
	return out
}

// lowerDirs returns the layer directories, topmost first.
func (i *Inventory) lowerDirs(ctx context.Context, ns string, c *containersapi.Container) ([]string, error) {
	res, err := i.snapshots.Mounts(in(ctx, ns), &snapshotsapi.MountsRequest{Snapshotter: c.Snapshotter, Key: c.SnapshotKey})
	if err != nil {
		return nil, fmt.Errorf("reading a snapshot's mounts: %w", err)
	}
	for _, m := range res.Mounts {
		mount := mounts.Mount{Type: "overlay", Point: "/", FSOptions: strings.Join(m.Options, ",")}
		if o, ok := mount.Overlay(); ok && strings.HasSuffix(m.Type, "overlay") {
			return o.Lower, nil
		}
	}
	return nil, nil
}

// chain returns the snapshots below a container's, topmost first; they are
// named by chain id.
func (i *Inventory) chain(ctx context.Context, ns, snapshotter, key string) ([]string, error) {
	var out []string
	for name := key; len(out) < maxChain; {
		parent, err := i.parent(ctx, ns, snapshotter, name, name != key)
		if err != nil {
			return nil, err
		}
		if parent == "" {
			return out, nil
		}
		out = append(out, parent)
		name = parent
	}
	return nil, errors.New("chain of snapshots is too long")
}

func (i *Inventory) parent(ctx context.Context, ns, snapshotter, name string, committed bool) (string, error) {
	key := ns + "/" + snapshotter + "/" + name
	i.layers.mu.Lock()
	p, ok := i.layers.parents[key]
	i.layers.mu.Unlock()
	if ok {
		return p, nil
	}
	res, err := i.snapshots.Stat(in(ctx, ns), &snapshotsapi.StatSnapshotRequest{Snapshotter: snapshotter, Key: name})
	if err != nil {
		return "", fmt.Errorf("reading snapshot %s: %w", name, err)
	}
	if committed {
		i.layers.mu.Lock()
		defer i.layers.mu.Unlock()
		if i.layers.parents == nil || len(i.layers.parents) >= maxCached {
			i.layers.parents = map[string]string{}
		}
		i.layers.parents[key] = res.Info.Parent
	}
	return res.Info.Parent, nil
}

// imageDigests maps chain ids to layer digests for the manifest of an image
// whose layers end in the given chain id.
func (i *Inventory) imageDigests(ctx context.Context, ns, name, top string) (map[string]string, error) {
	res, err := i.images.Get(in(ctx, ns), &imagesapi.GetImageRequest{Name: name})
	if err != nil {
		return nil, fmt.Errorf("reading image %s: %w", name, err)
	}
	digest := res.Image.GetTarget().GetDigest()
	key := ns + "/" + digest
	i.layers.mu.Lock()
	cached, ok := i.layers.digests[key]
	i.layers.mu.Unlock()
	if ok {
		return cached, nil
	}
	found, err := i.manifest(ctx, ns, digest, top, 0)
	if err != nil {
		return nil, err
	}
	i.layers.mu.Lock()
	defer i.layers.mu.Unlock()
	if i.layers.digests == nil || len(i.layers.digests) >= maxCached {
		i.layers.digests = map[string]map[string]string{}
	}
	i.layers.digests[key] = found
	return found, nil
}

var errNoMatch = errors.New("no manifest of the image has the container's layers")

// manifest follows indexes, this machine's platform first, to the manifest
// that has the chain.
func (i *Inventory) manifest(ctx context.Context, ns, digest, top string, depth int) (map[string]string, error) {
	doc, err := i.document(ctx, ns, digest)
	if err != nil {
		return nil, err
	}
	if len(doc.Layers) > 0 {
		b, err := i.blob(ctx, ns, doc.Config.Digest)
		if err != nil {
			return nil, err
		}
		diffIDs, err := image.ParseConfig(b)
		if err != nil {
			return nil, err
		}
		chain := image.ChainIDs(diffIDs)
		if len(chain) != len(doc.Layers) || chain[len(chain)-1] != top {
			return nil, errNoMatch
		}
		out := map[string]string{}
		for n, id := range chain {
			out[id] = doc.Layers[n].Digest
		}
		return out, nil
	}
	for _, native := range []bool{true, false} {
		for _, d := range doc.Manifests {
			mine := d.Platform == nil || d.Platform.Architecture == runtime.GOARCH
			if mine != native || depth > 2 {
				continue
			}
			if out, err := i.manifest(ctx, ns, d.Digest, top, depth+1); err == nil {
				return out, nil
			}
		}
	}
	return nil, errNoMatch
}

func (i *Inventory) document(ctx context.Context, ns, digest string) (image.Document, error) {
	b, err := i.blob(ctx, ns, digest)
	if err != nil {
		return image.Document{}, err
	}
	return image.ParseDocument(b)
}

// blob reads a small blob; containerd has checked its digest.
func (i *Inventory) blob(ctx context.Context, ns, digest string) ([]byte, error) {
	ctx, cancel := context.WithCancel(in(ctx, ns))
	defer cancel()
	stream, err := i.content.Read(ctx, &contentapi.ReadContentRequest{Digest: digest})
	if err != nil {
		return nil, fmt.Errorf("reading blob %s: %w", digest, err)
	}
	var out []byte
	for {
		res, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading blob %s: %w", digest, err)
		}
		if out = append(out, res.Data...); len(out) > image.MaxDocument {
			return nil, fmt.Errorf("reading blob %s: larger than %d bytes", digest, image.MaxDocument)
		}
	}
}
