package unpack

import (
	"archive/zip"
	"bytes"
	"context"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/ulikunitz/xz"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/filetype"
)

// BenchmarkWalk measures unpacked bytes per second for one program in each
// format; "xz peer" is the library we would use otherwise, on the same data.
func BenchmarkWalk(b *testing.B) {
	program, err := os.ReadFile(os.Args[0])
	require.NoError(b, err)
	program = program[:min(len(program), 4<<20)]
	var packed bytes.Buffer
	w, err := xz.NewWriter(&packed)
	require.NoError(b, err)
	_, err = w.Write(program)
	require.NoError(b, err)
	require.NoError(b, w.Close())
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"tar", tarOf(b, entry{"program", program})},
		{"zip", zipOf(b, zip.Deflate, entry{"program", program})},
		{"gzip", gzipOf(b, "", program)},
		{"zstd", zstdOf(b, program)},
		{"lz4", lz4Of(b, program)},
		{"xz", packed.Bytes()},
	} {
		b.Run(c.name, func(b *testing.B) {
			u := New()
			defer u.Close()
			src := &Source{Type: filetype.Recognise(c.data), Data: c.data}
			b.SetBytes(int64(len(program)))
			b.ReportAllocs()
			for b.Loop() {
				reasons, err := u.Walk(context.Background(), src, NewBudget(engine.Limits{}, int64(len(c.data))), discard)
				if err != nil || len(reasons) > 0 {
					b.Fatal(err, reasons)
				}
			}
		})
	}
	b.Run("xz peer", func(b *testing.B) {
		b.SetBytes(int64(len(program)))
		b.ReportAllocs()
		for b.Loop() {
			r, err := xz.NewReader(bytes.NewReader(packed.Bytes()))
			if err != nil {
				b.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, r); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkAppended is what every plain file pays for the search.
func BenchmarkAppended(b *testing.B) {
	elf, err := os.ReadFile(os.Args[0])
	require.NoError(b, err)
	for _, c := range []struct {
		name string
		data []byte
	}{
		{"text 4 KB", bytes.Repeat([]byte("some text in a file\n"), 200)},
		{"elf", elf},
	} {
		b.Run(c.name, func(b *testing.B) {
			u := New()
			defer u.Close()
			src := &Source{Type: filetype.Recognise(c.data), Data: c.data}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := u.Walk(context.Background(), src, NewBudget(engine.Limits{}, 1), discard); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func discard(m *Member) error {
	if m.Reader == nil {
		return nil
	}
	_, err := io.Copy(io.Discard, m.Reader)
	return err
}
