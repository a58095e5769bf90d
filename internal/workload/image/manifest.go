// Package image opens container images in files: an OCI image layout
// directory, or a tar archive holding one or written by "docker save". It
// finds the layers and checks their digests; what is inside a layer is only
// ever looked at by the sandboxed engine.
//
// Formats: OCI Image Format Specification 1.1 (layout, index, manifest) and
// the Docker Image Specification 1.2 (manifest.json). Archives come from
// strangers and are read by a privileged process, so this parser knows very
// little: tar headers, and JSON documents of bounded size.
package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
)

// MaxDocument bounds index, manifest and configuration in bytes, the limit
// registries use.
const MaxDocument = 4 << 20

const (
	maxManifests = 256   // images in one file
	maxLayers    = 4096  // layers in one file
	maxDepth     = 4     // indexes in indexes
	maxName      = 512   // bytes of a name that is kept
	maxEntries   = 65536 // entries of the outer tar archive
)

// ErrFormat says that a document is not what its place promises.
var ErrFormat = errors.New("not a valid image document")

// Descriptor points at a blob.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Platform    *Platform         `json:"platform"`
	Annotations map[string]string `json:"annotations"`
}

// Platform an image is for.
type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

// Document is an index (Manifests set) or a manifest (Layers set); Docker's
// media types have the same form.
type Document struct {
	MediaType string      `json:"mediaType"`
	Manifests Descriptors `json:"manifests"`
	Config    Descriptor  `json:"config"`
	Layers    Descriptors `json:"layers"`
}

// Descriptors is a list of at most 4096 descriptors. The length is checked
// while reading: a few bytes of text make a large element.
type Descriptors []Descriptor

// UnmarshalJSON implements json.Unmarshaler.
func (l *Descriptors) UnmarshalJSON(b []byte) error {
	*l = nil
	if string(b) == "null" {
		return nil
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('[') {
		return errors.New("not a list of descriptors")
	}
	for d.More() {
		if len(*l) >= maxLayers {
			return fmt.Errorf("more than %d descriptors", maxLayers)
		}
		var x Descriptor
		if err := d.Decode(&x); err != nil {
			return err
		}
		*l = append(*l, x)
	}
	return nil
}

// ParseDocument reads an index or manifest of at most MaxDocument bytes.
func ParseDocument(b []byte) (Document, error) {
	var d Document
	if len(b) > MaxDocument {
		return d, fmt.Errorf("reading an index or manifest of %d bytes: %w", len(b), ErrFormat)
	}
	if err := json.Unmarshal(b, &d); err != nil {
		return d, fmt.Errorf("reading an index or manifest: %w: %w", ErrFormat, err)
	}
	return d, nil
}

// ParseConfig reads the digests of an image's uncompressed layers, bottom
// first, from its configuration.
func ParseConfig(b []byte) (diffIDs []string, err error) {
	var c struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	if len(b) > MaxDocument {
		return nil, fmt.Errorf("reading an image configuration of %d bytes: %w", len(b), ErrFormat)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return nil, fmt.Errorf("reading an image configuration: %w: %w", ErrFormat, err)
	}
	if len(c.RootFS.DiffIDs) > maxLayers {
		return nil, fmt.Errorf("reading an image configuration with %d layers: %w", len(c.RootFS.DiffIDs), ErrFormat)
	}
	return c.RootFS.DiffIDs, nil
}

// ChainIDs names the stack of layers up to each layer, as snapshotters do
// (OCI Image Specification, "Layer ChainID").
func ChainIDs(diffIDs []string) []string {
	out := make([]string, len(diffIDs))
	for i, d := range diffIDs {
		out[i] = d
		if i > 0 {
			sum := sha256.Sum256([]byte(out[i-1] + " " + d))
			out[i] = "sha256:" + hex.EncodeToString(sum[:])
		}
	}
	return out
}

// index reports whether the document lists manifests.
func (d *Document) index() bool { return len(d.Manifests) > 0 && len(d.Layers) == 0 }

// dockerManifest is one element of manifest.json in a "docker save" archive.
type dockerManifest struct {
	Config   string   `json:"Config"`
	RepoTags []string `json:"RepoTags"`
	Layers   []string `json:"Layers"`
}

func parseDocker(b []byte) ([]dockerManifest, error) {
	var m []dockerManifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("reading manifest.json: %w: %w", ErrFormat, err)
	}
	if len(m) > maxManifests {
		return nil, fmt.Errorf("reading manifest.json with %d images: %w", len(m), ErrFormat)
	}
	for i := range m {
		if len(m[i].Layers) > maxLayers {
			return nil, fmt.Errorf("reading manifest.json with %d layers: %w", len(m[i].Layers), ErrFormat)
		}
	}
	return m, nil
}

// blobName is the path of a blob in a layout; false if the digest is not a
// sha256 or sha512 digest in canonical form.
func blobName(digest string) (string, bool) {
	algorithm, sum, ok := strings.Cut(digest, ":")
	want := map[string]int{"sha256": 64, "sha512": 128}[algorithm]
	if !ok || want == 0 || len(sum) != want || strings.Trim(sum, "0123456789abcdef") != "" {
		return "", false
	}
	return "blobs/" + algorithm + "/" + sum, true
}
