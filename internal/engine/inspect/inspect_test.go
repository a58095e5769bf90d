package inspect

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

func TestPlainFile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		data     string
		severity threat.Severity
		want     threat.Verdict
	}{
		"clean":         {"hay", threat.High, threat.Clean},
		"empty":         {"", threat.High, threat.Clean},
		"critical":      {"hay NEEDLE", threat.Critical, threat.Malicious},
		"medium":        {"hay NEEDLE", threat.Medium, threat.Suspicious},
		"informational": {"hay NEEDLE", threat.Informational, threat.Clean},
		"no severity":   {"hay NEEDLE", "", threat.Malicious},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newFinder()
			e.severity = c.severity
			objects := inspectBytes(t, e, []byte(c.data), engine.Limits{})
			require.Len(t, objects, 1)
			o := objects[0]
			require.Equal(t, c.want, o.Verdict)
			require.Equal(t, threat.Hash(sha256.Sum256([]byte(c.data))), o.Hash)
			require.Equal(t, int64(len(c.data)), o.Size)
			require.Empty(t, o.Reasons)
			require.Equal(t, bytes.Contains([]byte(c.data), needle), len(o.Detections) == 1)
		})
	}
}

func TestHashesOnlyWhenNeeded(t *testing.T) {
	t.Parallel()
	e := newFinder()
	inspectBytes(t, e, []byte("x"), engine.Limits{})
	require.Nil(t, e.last.SHA1)
	require.Nil(t, e.last.MD5)
	for _, buffer := range []int64{0, 4} { // in memory, and streamed
		p := New(Config{Engines: []engine.Engine{e}, NeedSHA1: true, NeedMD5: true})
		data := []byte("more than four bytes")
		require.NoError(t, p.Inspect(context.Background(), bytes.NewReader(data), int64(len(data)), engine.Limits{Buffer: buffer}, func(threat.Object) error { return nil }))
		require.Equal(t, threat.Hash(sha256.Sum256(data)), e.last.SHA256)
		require.Equal(t, sha1.Sum(data), *e.last.SHA1)
		require.Equal(t, md5.Sum(data), *e.last.MD5)
	}
}

func TestNested(t *testing.T) {
	t.Parallel()
	inner := zipOf(t, zip.Deflate, entry{"bad", []byte("a NEEDLE")}, entry{"good", []byte("hay")})
	data := gzipOf(t, tarOf(t, entry{"dir/inner.zip", inner}, entry{"last", []byte("hay")}))
	objects := inspectBytes(t, newFinder(), data, engine.Limits{})
	var members []string
	for _, o := range objects {
		members = append(members, o.Member)
	}
	require.Equal(t, []string{"", "content", "content!/dir/inner.zip", "content!/dir/inner.zip!/bad", "content!/dir/inner.zip!/good", "content!/last"}, members)
	require.Equal(t, threat.Clean, objects[0].Verdict, "the verdict of a container is its own")
	require.Equal(t, threat.Malicious, objects[3].Verdict)
	require.Equal(t, "text", objects[3].Type)
	require.Equal(t, threat.Malicious, (&engine.Result{Objects: objects}).Verdict())
}

func TestEqualContentIsAskedAboutOnce(t *testing.T) {
	t.Parallel()
	e := newFinder()
	same := []byte("a NEEDLE again and again")
	objects := inspectBytes(t, e, zipOf(t, zip.Deflate, entry{"a", same}, entry{"b", same}, entry{"c", same}), engine.Limits{})
	require.Len(t, objects, 4)
	for _, o := range objects[1:] {
		require.Equal(t, threat.Malicious, o.Verdict)
		require.Len(t, o.Detections, 1)
	}
	require.Equal(t, []string{"zip", "text"}, e.asked)
}

func TestDepth(t *testing.T) {
	t.Parallel()
	data := []byte("a NEEDLE")
	for range 5 {
		data = zipOf(t, zip.Deflate, entry{"x", data})
	}
	objects := inspectBytes(t, newFinder(), data, engine.Limits{Depth: 5})
	require.Len(t, objects, 6)
	require.Equal(t, threat.Malicious, objects[5].Verdict)
	objects = inspectBytes(t, newFinder(), data, engine.Limits{Depth: 4})
	require.Len(t, objects, 5)
	require.Equal(t, []string{threat.ReasonLimitDepth}, codes(objects[4].Reasons))
	require.Equal(t, threat.Partial, objects[4].Verdict)
	// What is appended to a file counts as well.
	sfx := append([]byte("#!/bin/sh\nexit\n"), data...)
	objects = inspectBytes(t, newFinder(), zipOf(t, zip.Store, entry{"sfx", sfx}), engine.Limits{Depth: 1})
	require.Equal(t, []string{threat.ReasonLimitDepth}, codes(objects[1].Reasons))
}

func TestEncryptedMemberMakesTheContainerPartial(t *testing.T) {
	t.Parallel()
	data, err := os.ReadFile(filepath.Join("..", "unpack", "testdata", "encrypted.zip"))
	require.NoError(t, err)
	objects := inspectBytes(t, newFinder(), data, engine.Limits{})
	require.Equal(t, threat.Partial, objects[0].Verdict)
	require.Equal(t, []string{threat.ReasonEncrypted}, codes(objects[0].Reasons))
}

func TestMemberTooLarge(t *testing.T) {
	t.Parallel()
	random := make([]byte, 3000)
	rand.New(rand.NewSource(1)).Read(random)
	late := append(bytes.Clone(random), "NEEDLE"...)
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		objects := inspectBytes(t, newFinder(), zipOf(t, method, entry{"big", late}, entry{"small", []byte("NEEDLE")}), engine.Limits{MemberSize: 2000})
		require.Len(t, objects, 3)
		require.Contains(t, codes(objects[0].Reasons), threat.ReasonTooLarge)
		require.Contains(t, codes(objects[1].Reasons), threat.ReasonTooLarge)
		require.Equal(t, int64(len(late)), objects[1].Size)
		require.Equal(t, threat.Malicious, objects[2].Verdict)
	}
}

// TestLargeStreamIsUnpackedWhileItIsRead: the tar in a tar.gz may be larger than
// members may be; what is in it is inspected all the same.
func TestLargeStreamIsUnpackedWhileItIsRead(t *testing.T) {
	t.Parallel()
	random := make([]byte, 100_000)
	rand.New(rand.NewSource(1)).Read(random)
	data := gzipOf(t, tarOf(t, entry{"a", random[:30_000]}, entry{"b", random[30_000:60_000]}, entry{"bad", []byte("NEEDLE")}))
	objects := inspectBytes(t, newFinder(), data, engine.Limits{MemberSize: 40_000})
	require.Len(t, objects, 5)
	require.Equal(t, "content", objects[1].Member)
	require.Equal(t, threat.Partial, objects[1].Verdict)
	require.True(t, objects[1].Hash.IsZero(), "content that was not read completely has no hash")
	require.Equal(t, "content!/bad", objects[4].Member)
	require.Equal(t, threat.Malicious, objects[4].Verdict)
}

func TestLargeFile(t *testing.T) {
	t.Parallel()
	random := make([]byte, 100_000)
	rand.New(rand.NewSource(1)).Read(random)
	data := zipOf(t, zip.Store, entry{"random", random}, entry{"bad", []byte("NEEDLE")})
	path := filepath.Join(t.TempDir(), "large")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	e := newFinder()
	p := New(Config{Engines: []engine.Engine{e}})
	var objects []threat.Object
	require.NoError(t, p.Inspect(context.Background(), f, int64(len(data)), engine.Limits{Buffer: 5000}, func(o threat.Object) error {
		objects = append(objects, o)
		return nil
	}))
	require.Len(t, objects, 3)
	require.Equal(t, threat.Partial, objects[0].Verdict)
	require.Equal(t, []string{threat.ReasonTooLarge}, codes(objects[0].Reasons))
	require.Equal(t, threat.Hash(sha256.Sum256(data)), objects[0].Hash)
	require.Equal(t, int64(len(data)), objects[0].Size)
	require.Equal(t, threat.Malicious, objects[2].Verdict)
	e.needle = []byte("PK\x03\x04")
	objects = objects[:0]
	require.NoError(t, p.Inspect(context.Background(), f, int64(len(data)), engine.Limits{Buffer: 5000}, func(o threat.Object) error {
		objects = append(objects, o)
		return nil
	}))
	require.Equal(t, threat.Malicious, objects[0].Verdict, "a threat in the first bytes is one")
}

func TestChangedFile(t *testing.T) {
	t.Parallel()
	data := []byte("some content that has another size than announced")
	for _, size := range []int64{int64(len(data)) - 5, int64(len(data)) + 5} {
		for _, buffer := range []int64{0, 10} {
			p := New(Config{Engines: []engine.Engine{newFinder()}})
			require.NoError(t, p.Inspect(context.Background(), bytes.NewReader(data), size, engine.Limits{Buffer: buffer}, func(o threat.Object) error {
				if size > int64(len(data)) || buffer == 0 {
					require.Contains(t, codes(o.Reasons), threat.ReasonChanged)
					require.True(t, o.Hash.IsZero())
				}
				require.Equal(t, threat.Partial, o.Verdict)
				return nil
			}))
		}
	}
}

// TestFileWrittenToWhileInspected: a large file is read more than once.
func TestFileWrittenToWhileInspected(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, make([]byte, 10_000), 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	writer := engineFunc(func() {
		require.NoError(t, os.Chtimes(path, time.Unix(1, 0), time.Unix(1, 0)))
	})
	p := New(Config{Engines: []engine.Engine{writer}})
	require.NoError(t, p.Inspect(context.Background(), f, 10_000, engine.Limits{Buffer: 1000}, func(o threat.Object) error {
		require.Contains(t, codes(o.Reasons), threat.ReasonChanged)
		return nil
	}))
}

type engineFunc func()

func (engineFunc) Name() string { return "func" }
func (f engineFunc) Inspect(context.Context, *engine.Content) ([]threat.Detection, error) {
	f()
	return nil, nil
}

type badReader struct{ err error }

func (b badReader) ReadAt([]byte, int64) (int, error) { return 0, b.err }

func TestUnreadable(t *testing.T) {
	t.Parallel()
	p := New(Config{Engines: []engine.Engine{newFinder()}})
	require.NoError(t, p.Inspect(context.Background(), badReader{errors.New("input/output error")}, 100, engine.Limits{}, func(o threat.Object) error {
		require.Equal(t, threat.Error, o.Verdict)
		require.Equal(t, []threat.Reason{{Code: threat.ReasonUnreadable, Text: "reading: input/output error"}}, o.Reasons)
		return nil
	}))
}

func TestNotInspectedIsNotClean(t *testing.T) {
	t.Parallel()
	t.Run("no engines", func(t *testing.T) {
		t.Parallel()
		p := New(Config{})
		require.NoError(t, p.Inspect(context.Background(), bytes.NewReader([]byte("x")), 1, engine.Limits{}, func(o threat.Object) error {
			require.Equal(t, threat.Partial, o.Verdict)
			require.Equal(t, []string{threat.ReasonNoSignatures}, codes(o.Reasons))
			return nil
		}))
	})
	t.Run("engine fails", func(t *testing.T) {
		t.Parallel()
		e := newFinder()
		e.err = errors.New("no memory")
		objects := inspectBytes(t, e, []byte("hay"), engine.Limits{})
		require.Equal(t, threat.Partial, objects[0].Verdict)
		require.Equal(t, []threat.Reason{{Code: threat.ReasonEngineFailed, Text: "engine finder: no memory"}}, objects[0].Reasons)
		objects = inspectBytes(t, e, []byte("NEEDLE"), engine.Limits{})
		require.Equal(t, threat.Malicious, objects[0].Verdict)
		require.Len(t, objects[0].Reasons, 1)
	})
	t.Run("engine takes too long", func(t *testing.T) {
		t.Parallel()
		e := newFinder()
		e.block = true
		objects := inspectBytes(t, e, zipOf(t, zip.Deflate, entry{"a", []byte("hay")}), engine.Limits{Time: 20 * time.Millisecond})
		require.Equal(t, threat.Partial, objects[0].Verdict)
		require.Equal(t, []string{threat.ReasonEngineTimeout, threat.ReasonLimitTime}, codes(objects[0].Reasons))
	})
}

func TestCallersContextAndEmitErrorsAreErrors(t *testing.T) {
	t.Parallel()
	p := New(Config{Engines: []engine.Engine{newFinder()}})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := p.Inspect(ctx, bytes.NewReader([]byte("x")), 1, engine.Limits{}, func(threat.Object) error { return nil })
	require.ErrorIs(t, err, context.Canceled)
	boom := errors.New("boom")
	err = p.Inspect(context.Background(), bytes.NewReader([]byte("x")), 1, engine.Limits{}, func(threat.Object) error { return boom })
	require.ErrorIs(t, err, boom)
}

func TestReadGrowsToWhatIsNeeded(t *testing.T) {
	t.Parallel()
	data := make([]byte, 5<<20)
	for _, size := range []int64{-1, 5 << 20, 100, 1 << 40} {
		p := New(Config{})
		b, err := p.read(bytes.NewReader(data), size, 64<<20)
		require.NoError(t, err)
		require.Len(t, b, len(data))
		require.LessOrEqual(t, cap(b), len(data)*8/5, "declared as %d", size)
		if size == 5<<20 {
			require.LessOrEqual(t, cap(b), len(data)+1<<16)
		}
	}
	p := New(Config{})
	b, err := p.read(bytes.NewReader(data), -1, 1<<20)
	require.ErrorIs(t, err, errMore)
	require.Len(t, b, 1<<20+1)
	b, err = p.read(io.MultiReader(bytes.NewReader(data[:10]), failing{}), 100, 1<<20)
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
	require.Len(t, b, 10)
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }
