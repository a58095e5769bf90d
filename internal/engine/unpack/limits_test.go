package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/threat"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	zeros := make([]byte, 12<<20)
	many := func(n int, data []byte) (e []entry) {
		for i := range n {
			e = append(e, entry{strconv.Itoa(i), data})
		}
		return e
	}
	nested := zipOf(t, zip.Deflate, many(10, zeros[:1<<20])...)
	for range 3 {
		nested = zipOf(t, zip.Deflate, many(10, nested)...)
	}
	for name, c := range map[string]struct {
		data   []byte
		limits engine.Limits
		want   string
	}{
		"flat zip bomb":      {zipOf(t, zip.Deflate, entry{"zeros", zeros}), engine.Limits{}, threat.ReasonLimitRatio},
		"many small bombs":   {zipOf(t, zip.Deflate, many(20, zeros[:1<<20])...), engine.Limits{}, threat.ReasonLimitRatio},
		"nested zip bomb":    {nested, engine.Limits{}, threat.ReasonLimitRatio},
		"gzip bomb":          {gzipOf(t, "", zeros), engine.Limits{}, threat.ReasonLimitRatio},
		"zstd bomb":          {zstdOf(t, zeros), engine.Limits{}, threat.ReasonLimitRatio},
		"zip in gzip, total": {gzipOf(t, "", zipOf(t, zip.Deflate, many(20, program())...)), engine.Limits{Total: 100_000}, threat.ReasonLimitTotal},
		"members of zip":     {zipOf(t, zip.Store, many(11, noteText)...), engine.Limits{Members: 10}, threat.ReasonLimitMembers},
		"members of tar":     {tarOf(t, many(11, noteText)...), engine.Limits{Members: 10}, threat.ReasonLimitMembers},
		"members of nested":  {tarOf(t, entry{"a", tarOf(t, many(5, noteText)...)}, entry{"b", tarOf(t, many(5, noteText)...)}), engine.Limits{Members: 10}, threat.ReasonLimitMembers},
		"time":               {zipOf(t, zip.Deflate, many(2, noteText)...), engine.Limits{Time: 1}, threat.ReasonLimitTime},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			started := time.Now()
			f := walkAll(t, c.data, c.limits)
			require.Contains(t, f.codes(), c.want)
			require.Less(t, time.Since(started), 20*time.Second)
		})
	}
}

// TestOverlongSparse: a hole of a gigabyte is cut, and is not called a bomb.
func TestOverlongSparse(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: "note.txt", Mode: 0o644, Size: int64(len(noteText))}))
	_, err := w.Write(noteText)
	require.NoError(t, err)
	require.NoError(t, w.Flush())
	h := make([]byte, 512) // old GNU format: type S, one fragment at the end, real size
	copy(h, "hole")
	copy(h[100:], "0000644\x000000000\x000000000\x0000000000000\x0000000000000\x00")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], "10000000000\x0000000000000\x00") // offset, length
	copy(h[483:], "10000000000\x00")
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	b.Write(h)
	b.Write(make([]byte, 1024))
	reasons, err := New().Walk(context.Background(), &Source{Type: filetype.Tar, Data: b.Bytes()}, NewBudget(engine.Limits{}, int64(b.Len())), func(m *Member) error {
		if m.Reader == nil {
			return nil
		}
		n, err := io.Copy(io.Discard, m.Reader)
		require.Equal(t, int64(maxSparse), n)
		return err
	})
	require.NoError(t, err)
	require.Equal(t, []threat.Reason{{Code: threat.ReasonSparseOverlong, Text: "hole: sparse file is larger than 67108864 bytes"}}, reasons)
}

// TestLimitsOfSevenZip: members that the visitor leaves are decoded to reach the
// next one; that counts too.
func TestLimitsOfSevenZip(t *testing.T) {
	t.Parallel()
	data := fixture(t, "LZMA.7z")
	u := New()
	defer u.Close()
	b := NewBudget(engine.Limits{Total: 3000}, int64(len(data)))
	reasons, err := u.Walk(context.Background(), &Source{Type: filetype.Seven, Data: data}, b, func(m *Member) error { return nil })
	require.NoError(t, err)
	require.Equal(t, []threat.Reason{{Code: threat.ReasonLimitTotal, Text: "more than 3000 bytes unpacked"}}, reasons)
}

func TestVisitorsErrorEndsTheWalk(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for name, data := range map[string][]byte{
		"tar":  tarOf(t, entry{"a", noteText}, entry{"b", noteText}),
		"zip":  zipOf(t, zip.Deflate, entry{"a", noteText}, entry{"b", noteText}),
		"gzip": gzipOf(t, "", noteText),
		"7z":   fixture(t, "LZMA.7z"),
		"self": append([]byte("#!/bin/sh\nexit\n"), gzipOf(t, "", noteText)...),
	} {
		u, n := New(), 0
		src := &Source{Type: filetype.Recognise(data), Data: data}
		reasons, err := u.Walk(context.Background(), src, NewBudget(engine.Limits{}, 1), func(*Member) error { n++; return boom })
		require.ErrorIs(t, err, boom, name)
		require.Empty(t, reasons, name)
		require.Equal(t, 1, n, name)
		u.Close()
	}
}

func TestCancelledContextIsAnErrorNotAReason(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(context.Background())
	data := tarOf(t, entry{"a", noteText}, entry{"b", noteText})
	reasons, err := New().Walk(ctx, &Source{Type: filetype.Tar, Data: data}, NewBudget(engine.Limits{}, 1), func(*Member) error { cancel(); return nil })
	require.ErrorIs(t, err, context.Canceled)
	require.Empty(t, reasons)
}

// TestVisitorFailure: a member that could not be inspected is noted and the
// walk goes on.
func TestVisitorFailure(t *testing.T) {
	t.Parallel()
	data := tarOf(t, entry{"a", noteText}, entry{"b", noteText})
	n := 0
	reasons, err := New().Walk(context.Background(), &Source{Type: filetype.Tar, At: bytes.NewReader(data), Size: int64(len(data))}, NewBudget(engine.Limits{}, 1), func(m *Member) error {
		n++
		_, err := io.CopyN(io.Discard, m.Reader, 3)
		require.NoError(t, err)
		return Fail(threat.ReasonTooLarge, "too large")
	})
	require.NoError(t, err)
	require.Equal(t, 2, n)
	require.Equal(t, []threat.Reason{{Code: threat.ReasonTooLarge, Text: "a: too large (and 1 more)"}}, reasons)
}

// TestHeadersThatLie: sizes and counts that no file could hold must neither be
// believed nor cost memory.
func TestHeadersThatLie(t *testing.T) { // not parallel: it measures allocation
	huge := stored("huge", noteText)
	huge.size = 0xfffffff0
	tiny := fixture(t, "LZMA.7z")
	for name, data := range map[string][]byte{
		"zip size":    rawZip(huge),
		"cpio name":   []byte("070701" + "00000001000081a40000000000000000000000010000000000000000000000000000000000000000000000007fffffff00000000" + "x"),
		"cpio size":   []byte("070701" + "00000001000081a400000000000000000000000100000000ffffffff000000000000000000000000000000000000000200000000" + "x\x00" + "data"),
		"ar size":     []byte("!<arch>\nname/           0           0     0     100644  9999999999`\ndata"),
		"ar table":    []byte("!<arch>\n//              0           0     0     100644  9999999999`\ndata"),
		"rpm header":  append(append([]byte("\xed\xab\xee\xdb"), make([]byte, 92)...), "\x8e\xad\xe8\x01\x00\x00\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff"...),
		"7z cut":      tiny[:40],
		"lzma window": append([]byte("\x5d\x00\x00\x00\xc0\xff\xff\xff\xff\xff\xff\xff\xff\x00"), make([]byte, 100)...),
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			f := walkSource(t, &Source{Data: data}, data, engine.Limits{})
			runtime.ReadMemStats(&after)
			require.NotEmpty(t, f.reasons)
			allocated := after.TotalAlloc - before.TotalAlloc
			require.Less(t, allocated, uint64(2<<20))
		})
	}
}
