package image

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

// files is an image under construction: name to content.
type files map[string][]byte

func (f files) blob(b []byte) string {
	sum := sha256.Sum256(b)
	hexSum := hex.EncodeToString(sum[:])
	f["blobs/sha256/"+hexSum] = b
	return "sha256:" + hexSum
}

func (f files) json(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return f.blob(b)
}

func (f files) index(descriptors ...map[string]any) {
	b, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": descriptors})
	if err != nil {
		panic(err)
	}
	f["index.json"], f["oci-layout"] = b, []byte(`{"imageLayoutVersion":"1.0.0"}`)
}

func (f files) manifest(layers ...string) map[string]any {
	list := []map[string]any{}
	for _, l := range layers {
		list = append(list, map[string]any{"digest": l, "mediaType": "application/vnd.oci.image.layer.v1.tar"})
	}
	return map[string]any{"digest": f.json(map[string]any{"layers": list})}
}

func on(d map[string]any, platform string) map[string]any {
	system, arch, _ := strings.Cut(platform, "/")
	d["platform"] = map[string]string{"os": system, "architecture": arch}
	return d
}

func (f files) tar(t testing.TB) string {
	name := filepath.Join(t.TempDir(), "image.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for n, data := range f {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: n, Mode: 0o644, Size: int64(len(data))}))
		_, err := w.Write(data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(name, b.Bytes(), 0o600))
	return name
}

func (f files) dir(t testing.TB) string {
	dir := t.TempDir()
	for n, data := range f {
		full := filepath.Join(dir, n)
		require.NoError(t, os.MkdirAll(filepath.Dir(full), 0o755))
		require.NoError(t, os.WriteFile(full, data, 0o600))
	}
	return dir
}

// content reads all layers that can be read.
func content(t testing.TB, im *Image) []string {
	var out []string
	for _, l := range im.Layers() {
		f, err := l.File()
		require.NoError(t, err)
		b, err := io.ReadAll(f)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		out = append(out, string(b))
	}
	return out
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		build   func(f files)
		opts    Options
		want    []string
		missing []string // reason codes
	}{
		{name: "two layers", build: func(f files) {
			f.index(f.manifest(f.blob([]byte("bottom")), f.blob([]byte("top"))))
		}, want: []string{"bottom", "top"}},
		{name: "shared layer once", build: func(f files) {
			a := f.blob([]byte("a"))
			f.index(f.manifest(a, f.blob([]byte("b"))), f.manifest(a, f.blob([]byte("c"))))
		}, want: []string{"a", "b", "c"}},
		{name: "every platform", build: func(f files) {
			f.index(on(f.manifest(f.blob([]byte("amd"))), "linux/amd64"), on(f.manifest(f.blob([]byte("arm"))), "linux/arm64"))
		}, want: []string{"amd", "arm"}},
		{name: "one platform", build: func(f files) {
			f.index(on(f.manifest(f.blob([]byte("amd"))), "linux/amd64"), on(f.manifest(f.blob([]byte("arm"))), "linux/arm64"))
		}, opts: Options{Platform: "linux/arm64"}, want: []string{"arm"}},
		{name: "nested index", build: func(f files) {
			inner := f.json(map[string]any{"manifests": []any{f.manifest(f.blob([]byte("x")))}})
			f.index(map[string]any{"digest": inner})
		}, want: []string{"x"}},
		{name: "manifest not in the file", build: func(f files) {
			m := f.manifest(f.blob([]byte("x")))
			f.index(m, map[string]any{"digest": "sha256:" + strings.Repeat("0", 64)})
		}, want: []string{"x"}, missing: []string{threat.ReasonUnreadable}},
		{name: "layer not in the file", build: func(f files) {
			f.index(f.manifest(f.blob([]byte("x")), "sha256:"+strings.Repeat("1", 64)))
		}, want: []string{"x"}, missing: []string{threat.ReasonUnreadable}},
		{name: "exchanged manifest", build: func(f files) {
			good, bad := f.manifest(f.blob([]byte("x"))), f.manifest(f.blob([]byte("y")))
			name, _ := blobName(bad["digest"].(string))
			f[name] = []byte(`{"layers":[]}`)
			f.index(good, bad)
		}, want: []string{"x"}, missing: []string{threat.ReasonDamaged}},
		{name: "digest that is a path", build: func(f files) {
			f.index(f.manifest("sha256:../../../../etc/passwd", "md5:"+strings.Repeat("0", 32)), map[string]any{"digest": "x"})
		}, missing: []string{threat.ReasonUnknownMethod, threat.ReasonUnknownMethod, threat.ReasonUnknownMethod}},
		{name: "docker save, old", build: func(f files) {
			f["abc/layer.tar"] = []byte("old")
			f["manifest.json"] = []byte(`[{"Config":"c.json","RepoTags":["a/b:1"],"Layers":["abc/layer.tar","./abc/layer.tar","gone/layer.tar"]}]`)
		}, want: []string{"old"}, missing: []string{threat.ReasonUnreadable}},
		{name: "the two formats disagree", build: func(f files) {
			f.index(f.manifest(f.blob([]byte("shown"))))
			hidden, _ := blobName(f.blob([]byte("hidden")))
			f["manifest.json"] = []byte(`[{"Layers":["` + hidden + `"]}]`)
		}, want: []string{"shown", "hidden"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := files{}
			c.build(f)
			for kind, path := range map[string]string{"tar": f.tar(t), "directory": f.dir(t)} {
				im, err := Open(path, c.opts)
				require.NoError(t, err, kind)
				require.Equal(t, c.want, content(t, im), kind)
				var codes []string
				for _, m := range im.Missing() {
					codes = append(codes, m.Reason.Code)
				}
				require.Equal(t, c.missing, codes, kind)
				require.NoError(t, im.Close())
			}
		})
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	deep := files{}
	inner := deep.manifest(deep.blob([]byte("x")))
	for range maxDepth + 2 {
		inner = map[string]any{"digest": deep.json(map[string]any{"manifests": []any{inner}})}
	}
	deep.index(inner)
	many := bytes.Repeat([]byte(`{},`), maxLayers+1)
	for name, f := range map[string]files{
		"nothing":              {"x": []byte("y")},
		"empty":                {},
		"index is no JSON":     {"index.json": []byte("{")},
		"index is a list":      {"index.json": []byte("[]")},
		"manifest is no list":  {"manifest.json": []byte("{}")},
		"document too large":   {"index.json": bytes.Repeat([]byte(" "), MaxDocument+1)},
		"too many descriptors": {"index.json": fmt.Appendf(nil, `{"manifests":[%s{}]}`, many)},
		"nested too deep":      deep,
	} {
		_, err := Open(f.tar(t), Options{})
		require.ErrorIs(t, err, ErrFormat, name)
		_, err = Open(f.dir(t), Options{})
		require.ErrorIs(t, err, ErrFormat, name)
	}
	_, err := Open(filepath.Join(t.TempDir(), "none"), Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open("/dev/null", Options{})
	require.ErrorIs(t, err, ErrFormat)
}

func TestLayerFile(t *testing.T) {
	t.Parallel()
	f := files{}
	good := f.blob([]byte("good"))
	bad := f.blob([]byte("before"))
	f.index(f.manifest(good, bad))
	name, _ := blobName(bad)
	f[name] = []byte("after!")
	for kind, path := range map[string]string{"tar": f.tar(t), "directory": f.dir(t)} {
		im, err := Open(path, Options{TempDir: t.TempDir()})
		require.NoError(t, err)
		layers := im.Layers()
		require.Len(t, layers, 2)
		require.Equal(t, good, layers[0].Digest)
		require.Equal(t, good, "sha256:"+layers[0].Hash().String())
		_, err = layers[1].File()
		require.ErrorIs(t, err, ErrDigest, kind)

		im.opts.MaxLayer = 3
		_, err = layers[0].File()
		require.ErrorIs(t, err, ErrTooLarge, kind)
		require.NoError(t, im.Close())
	}
}

func TestDirectoryWithSpecialFiles(t *testing.T) {
	t.Parallel()
	f := files{}
	outside := filepath.Join(t.TempDir(), "outside")
	require.NoError(t, os.WriteFile(outside, []byte("outside"), 0o600))
	link, dir, fifo := f.blob([]byte("outside")), f.blob([]byte("directory")), f.blob([]byte("fifo"))
	f.index(f.manifest(link, dir, fifo))
	root := f.dir(t)
	for digest, make := range map[string]func(name string) error{
		link: func(n string) error { return os.Symlink(outside, n) },
		dir:  func(n string) error { return os.Mkdir(n, 0o755) },
		fifo: func(n string) error { return unix.Mkfifo(n, 0o600) },
	} {
		name, _ := blobName(digest)
		full := filepath.Join(root, name)
		require.NoError(t, os.Remove(full))
		require.NoError(t, make(full))
	}
	im, err := Open(root, Options{})
	require.NoError(t, err)
	require.Empty(t, im.Layers(), "a link out of the layout, a directory and a FIFO are no layers")
	require.Len(t, im.Missing(), 3)
	require.NoError(t, im.Close())
}

func TestRealArchive(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(name)
	require.NoError(t, err)
	want, err := containerdtest.WriteImage(f, "localhost/a/b:1", containerdtest.Layer{{Path: "x", Data: []byte("y")}}, containerdtest.Layer{{Path: "z", Data: []byte("z")}})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	im, err := Open(name, Options{})
	require.NoError(t, err)
	require.Equal(t, []string{"localhost/a/b:1"}, im.Names)
	var digests []string
	for _, l := range im.Layers() {
		digests = append(digests, l.Digest)
	}
	require.Equal(t, want.Layers, digests)
	require.Empty(t, im.Missing())
	require.NoError(t, im.Close())
	require.Equal(t, want.DiffIDs[0], ChainIDs(want.DiffIDs)[0])
}

func TestLinkedLayers(t *testing.T) {
	t.Parallel()
	name := filepath.Join(t.TempDir(), "image.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	add := func(h tar.Header, data string) {
		h.Size, h.Mode = int64(len(data)), 0o644
		require.NoError(t, w.WriteHeader(&h))
		_, err := w.Write([]byte(data))
		require.NoError(t, err)
	}
	add(tar.Header{Name: "a/layer.tar"}, "shared")
	add(tar.Header{Name: "b/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../a/layer.tar"}, "")
	add(tar.Header{Name: "c/layer.tar", Typeflag: tar.TypeSymlink, Linkname: "../c/layer.tar"}, "")
	add(tar.Header{Name: "manifest.json"}, `[{"Layers":["b/layer.tar","c/layer.tar"]}]`)
	require.NoError(t, w.Close())
	require.NoError(t, os.WriteFile(name, b.Bytes(), 0o600))
	im, err := Open(name, Options{})
	require.NoError(t, err)
	require.Equal(t, []string{"shared"}, content(t, im))
	require.Len(t, im.Missing(), 1, "a link to itself leads nowhere")
	require.NoError(t, im.Close())
}

func FuzzOpen(f *testing.F) {
	var good bytes.Buffer
	if _, err := containerdtest.WriteImage(&good, "a:1", containerdtest.Layer{{Path: "x", Data: []byte("y")}}); err != nil {
		f.Fatal(err)
	}
	f.Add(good.Bytes())
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1<<20 {
			return
		}
		name := filepath.Join(dir, fmt.Sprintf("%d.tar", os.Getpid()))
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		im, err := Open(name, Options{TempDir: dir})
		if err != nil {
			return
		}
		for _, l := range im.Layers() {
			if l.Size < 0 || l.Size > int64(len(data)) {
				t.Fatalf("layer of %d bytes in a file of %d", l.Size, len(data))
			}
			if f, err := l.File(); err == nil {
				_ = f.Close()
			}
		}
		_ = im.Close()
	})
}

func FuzzParseDocument(f *testing.F) {
	f.Add([]byte(`{"mediaType":"m","manifests":[{"digest":"sha256:00","platform":{"os":"linux"}}],"layers":null}`))
	f.Add([]byte(`{"config":{"digest":"d"},"layers":[{"size":1},{}]}`))
	f.Add([]byte(`{"rootfs":{"diff_ids":["sha256:1","sha256:2"]}}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, err := ParseDocument(b); err == nil && len(d.Layers) > maxLayers {
			t.Fatal("too many layers")
		}
		if ids, err := ParseConfig(b); err == nil && len(ChainIDs(ids)) != len(ids) {
			t.Fatal("chain length")
		}
		_, _ = parseDocker(b)
	})
}
