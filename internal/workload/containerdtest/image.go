package containerdtest

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
)

// File is one entry of a layer: a regular file, or a symbolic link if Link is
// set. Parent directories are made as needed.
type File struct {
	Path string // inside the image, without a leading slash
	Data []byte
	Mode int64  // permission bits; 0 means 0644
	Link string // target of a symbolic link
}

// Layer is a list of files that become one image layer.
type Layer []File

// Image names an image and its parts.
type Image struct {
	Name    string   // full reference
	Digest  string   // of the manifest, "sha256:…"
	Layers  []string // digests of the compressed layers, bottom first
	DiffIDs []string // digests of the uncompressed layers, bottom first
}

// Busybox returns a layer with Debian's static busybox and a link for every
// applet, and the directories a container needs.
func Busybox() (Layer, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, fmt.Errorf("looking for busybox (package busybox-static): %w", err)
	}
	if err := static(program); err != nil {
		return nil, err
	}
	data, err := os.ReadFile(program)
	if err != nil {
		return nil, fmt.Errorf("reading busybox: %w", err)
	}
	list, err := exec.Command(program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("listing busybox applets: %w", err)
	}
	layer := Layer{{Path: "bin/busybox", Data: data, Mode: 0o755}, {Path: "etc/passwd", Data: []byte("root:x:0:0:root:/:/bin/sh\n")}}
	for _, applet := range strings.Fields(string(list)) {
		if applet != "busybox" && !strings.Contains(applet, "/") {
			layer = append(layer, File{Path: "bin/" + applet, Link: "busybox"})
		}
	}
	return layer, nil
}

// static refuses programs that need a dynamic loader: there is none in the image.
func static(program string) error {
	f, err := elf.Open(program)
	if err != nil {
		return fmt.Errorf("reading %s: %w", program, err)
	}
	defer func() { _ = f.Close() }()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("using %s: it is dynamically linked; install busybox-static", program)
		}
	}
	return nil
}

// WriteImage writes an image archive that is OCI layout and Docker archive at
// once (OCI image layout 1.0, "docker save" manifest.json): accepted by ctr,
// docker and podman. All times are zero, so digests depend on content only.
func WriteImage(w io.Writer, name string, layers ...Layer) (Image, error) {
	b := builder{image: Image{Name: name}, tar: tar.NewWriter(w)}
	if err := b.write(layers); err != nil {
		return Image{}, fmt.Errorf("writing image %s: %w", name, err)
	}
	return b.image, nil
}

type builder struct {
	image Image
	tar   *tar.Writer
}

type descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int               `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    map[string]string `json:"platform,omitempty"`
}

func (b *builder) write(layers []Layer) error {
	var blobs []descriptor
	for _, l := range layers {
		plain, err := layerTar(l)
		if err != nil {
			return err
		}
		d, err := b.blob("application/vnd.oci.image.layer.v1.tar+gzip", compress(plain))
		if err != nil {
			return err
		}
		b.image.DiffIDs = append(b.image.DiffIDs, digest(plain))
		b.image.Layers = append(b.image.Layers, d.Digest)
		blobs = append(blobs, d)
	}
	config, err := b.json("application/vnd.oci.image.config.v1+json", map[string]any{
		"architecture": "amd64", "os": "linux",
		"config": map[string]any{"Env": []string{"PATH=/bin"}, "Cmd": []string{"/bin/sleep", "86400"}},
		"rootfs": map[string]any{"type": "layers", "diff_ids": b.image.DiffIDs},
	})
	if err != nil {
		return err
	}
	manifest, err := b.json("application/vnd.oci.image.manifest.v1+json", map[string]any{
		"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": blobs,
	})
	if err != nil {
		return err
	}
	b.image.Digest = manifest.Digest
	return b.index(config, manifest)
}

// index writes the entry points of both formats and ends the archive.
func (b *builder) index(config, manifest descriptor) error {
	manifest.Platform = map[string]string{"architecture": "amd64", "os": "linux"}
	manifest.Annotations = map[string]string{
		"io.containerd.image.name":          b.image.Name,
		"org.opencontainers.image.ref.name": b.image.Name[strings.LastIndex(b.image.Name, ":")+1:],
	}
	var paths []string
	for _, l := range b.image.Layers {
		paths = append(paths, blobPath(l))
	}
	for _, e := range []struct {
		name string
		v    any
	}{
		{"oci-layout", map[string]string{"imageLayoutVersion": "1.0.0"}},
		{"index.json", map[string]any{"schemaVersion": 2, "manifests": []descriptor{manifest}}},
		{"manifest.json", []any{map[string]any{"Config": blobPath(config.Digest), "RepoTags": []string{b.image.Name}, "Layers": paths}}},
	} {
		data, err := json.Marshal(e.v)
		if err != nil {
			return err
		}
		if err := b.entry(e.name, data); err != nil {
			return err
		}
	}
	return b.tar.Close()
}

func (b *builder) json(mediaType string, v any) (descriptor, error) {
	data, err := json.Marshal(v)
	if err != nil {
		return descriptor{}, err
	}
	return b.blob(mediaType, data)
}

func (b *builder) blob(mediaType string, data []byte) (descriptor, error) {
	d := descriptor{MediaType: mediaType, Digest: digest(data), Size: len(data)}
	return d, b.entry(blobPath(d.Digest), data)
}

func (b *builder) entry(name string, data []byte) error {
	if err := b.tar.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(data)), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	_, err := b.tar.Write(data)
	return err
}

// layerTar makes the uncompressed layer: directories before their content.
func layerTar(files Layer) ([]byte, error) {
	dirs := map[string]int64{"tmp": 0o1777, "proc": 0o755, "sys": 0o755, "dev": 0o755}
	for _, f := range files {
		for d := path.Dir(path.Clean(f.Path)); d != "." && d != "/"; d = path.Dir(d) {
			if _, ok := dirs[d]; !ok {
				dirs[d] = 0o755
			}
		}
	}
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	names := make([]string, 0, len(dirs))
	for d := range dirs {
		names = append(names, d)
	}
	slices.Sort(names)
	for _, d := range names {
		if err := w.WriteHeader(&tar.Header{Name: d + "/", Mode: dirs[d], Typeflag: tar.TypeDir}); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		h := tar.Header{Name: f.Path, Mode: f.Mode, Size: int64(len(f.Data)), Typeflag: tar.TypeReg}
		if h.Mode == 0 {
			h.Mode = 0o644
		}
		if f.Link != "" {
			h.Typeflag, h.Linkname, h.Mode, h.Size = tar.TypeSymlink, f.Link, 0o777, 0
		}
		if err := w.WriteHeader(&h); err != nil {
			return nil, err
		}
		if f.Link == "" {
			if _, err := w.Write(f.Data); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return buf.Bytes(), nil
}

func compress(b []byte) []byte {
	var buf bytes.Buffer
	w := gzip.NewWriter(&buf) // writing into memory cannot fail
	_, _ = w.Write(b)
	_ = w.Close()
	return buf.Bytes()
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func blobPath(digest string) string { return "blobs/" + strings.Replace(digest, ":", "/", 1) }
