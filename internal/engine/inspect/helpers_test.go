package inspect

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// finder is an engine that knows one byte string.
type finder struct {
	needle   []byte
	severity threat.Severity
	err      error
	asked    []string // types of what it was asked about
	last     engine.Content
	block    bool // wait for the context
}

func (f *finder) Name() string { return "finder" }

func (f *finder) Inspect(ctx context.Context, c *engine.Content) ([]threat.Detection, error) {
	f.asked = append(f.asked, c.Type)
	f.last = *c
	if f.block {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if bytes.Contains(c.Data, f.needle) {
		return []threat.Detection{{Signature: "Test.Needle", Engine: "finder", Severity: f.severity}}, f.err
	}
	return nil, f.err
}

var needle = []byte("NEEDLE")

func newFinder() *finder { return &finder{needle: needle, severity: threat.High} }

// inspectBytes runs a pipeline with one engine over content.
func inspectBytes(t testing.TB, e engine.Engine, data []byte, limits engine.Limits) []threat.Object {
	t.Helper()
	p := New(Config{Engines: []engine.Engine{e}})
	defer func() { require.NoError(t, p.Close()) }()
	var objects []threat.Object
	require.NoError(t, p.Inspect(context.Background(), bytes.NewReader(data), int64(len(data)), limits, func(o threat.Object) error {
		objects = append(objects, o)
		return nil
	}))
	require.NotEmpty(t, objects)
	return objects
}

func codes(reasons []threat.Reason) (c []string) {
	for _, r := range reasons {
		c = append(c, r.Code)
	}
	return c
}

type entry struct {
	name string
	data []byte
}

func zipOf(t testing.TB, method uint16, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, e := range entries {
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.name, Method: method})
		require.NoError(t, err)
		_, err = f.Write(e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data))}))
		_, err := w.Write(e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gzipOf(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}
