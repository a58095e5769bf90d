package image

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"github.com/lazaret/lazaret/internal/threat"
)

// manifests follows an index. Limits end the reading with an error: an image
// beyond them is not inspected rather than half inspected.
func (im *Image) manifests(list []Descriptor, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("indexes nested deeper than %d: %w", maxDepth, ErrFormat)
	}
	for _, d := range list {
		im.name(d.Annotations["io.containerd.image.name"], d.Annotations["org.opencontainers.image.ref.name"])
		if !im.wanted(d.Platform) || im.seen[d.Digest] {
			continue
		}
		im.seen[d.Digest] = true
		if im.count++; im.count > maxManifests {
			return fmt.Errorf("more than %d manifests: %w", maxManifests, ErrFormat)
		}
		name, ok := blobName(d.Digest)
		if !ok {
			im.miss(d.Digest, threat.ReasonUnknownMethod, "the digest is of an unknown kind")
			continue
		}
		doc, err := im.document(name, d.Digest)
		if err != nil {
			im.fail(d.Digest, err)
			continue
		}
		if doc.index() {
			if err := im.manifests(doc.Manifests, depth+1); err != nil {
				return err
			}
			continue
		}
		for _, l := range doc.Layers {
			if err := im.layer(l); err != nil {
				return err
			}
		}
	}
	return nil
}

func (im *Image) wanted(p *Platform) bool {
	return im.opts.Platform == "" || p == nil || p.OS+"/"+p.Architecture == im.opts.Platform
}

// name keeps the better of the two names a manifest may carry.
func (im *Image) name(names ...string) {
	for _, n := range names {
		if n != "" && len(n) <= maxName && len(im.Names) < maxManifests {
			im.Names = append(im.Names, strings.ToValidUTF8(n, "�"))
			return
		}
	}
}

// layer adds a layer known by digest.
func (im *Image) layer(d Descriptor) error {
	if im.seen["layer "+d.Digest] {
		return nil
	}
	im.seen["layer "+d.Digest] = true
	name, ok := blobName(d.Digest)
	if !ok {
		im.miss(d.Digest, threat.ReasonUnknownMethod, "the digest is of an unknown kind")
		return nil
	}
	return im.add(Layer{Digest: d.Digest, MediaType: d.MediaType, name: name})
}

// docker follows manifest.json. Layers that are blobs of a layout are named
// by digest; others, of old archives, by file.
func (im *Image) docker(b []byte) error {
	list, err := parseDocker(b)
	if err != nil {
		return err
	}
	for _, m := range list {
		im.name(m.RepoTags...)
		for _, l := range m.Layers {
			name := clean(l)
			if digest := blobDigest(name); digest != "" {
				if err := im.layer(Descriptor{Digest: digest}); err != nil {
					return err
				}
				continue
			}
			if im.seen["file "+name] {
				continue
			}
			im.seen["file "+name] = true
			if err := im.add(Layer{name: name}); err != nil {
				return err
			}
		}
	}
	return nil
}

// blobDigest is the reverse of blobName; empty if name is no blob's.
func blobDigest(name string) string {
	rest, ok := strings.CutPrefix(name, "blobs/")
	digest := strings.Replace(rest, "/", ":", 1)
	if again, canonical := blobName(digest); !ok || !canonical || again != name {
		return ""
	}
	return digest
}

func (im *Image) add(l Layer) error {
	s, err := im.src.open(l.name)
	if err != nil {
		im.fail(l.String(), err)
		return nil
	}
	s.close()
	l.Size, l.image = s.size, im
	if len(im.layers) >= maxLayers {
		return fmt.Errorf("more than %d layers: %w", maxLayers, ErrFormat)
	}
	im.layers = append(im.layers, l)
	return nil
}

// fail notes a part that could not be read.
func (im *Image) fail(what string, err error) {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		im.miss(what, threat.ReasonUnreadable, "it is not in the image file")
	case errors.Is(err, ErrDigest), errors.Is(err, ErrFormat):
		im.miss(what, threat.ReasonDamaged, err.Error())
	default:
		im.miss(what, threat.ReasonUnreadable, err.Error())
	}
}

func (im *Image) miss(what, code, text string) {
	if len(im.missing) < maxLayers {
		im.missing = append(im.missing, Missing{What: what, Reason: threat.Reason{Code: code, Text: what + ": " + text}})
	}
}
