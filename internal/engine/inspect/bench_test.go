package inspect

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// nothing is an engine that costs nothing: what is measured is the rest.
type nothing struct{}

func (nothing) Name() string { return "nothing" }
func (nothing) Inspect(context.Context, *engine.Content) ([]threat.Detection, error) {
	return nil, nil
}

func benchmark(b *testing.B, data []byte) {
	path := filepath.Join(b.TempDir(), "file")
	require.NoError(b, os.WriteFile(path, data, 0o600))
	f, err := os.Open(path)
	require.NoError(b, err)
	defer func() { require.NoError(b, f.Close()) }()
	p := New(Config{Engines: []engine.Engine{nothing{}}})
	emit := func(threat.Object) error { return nil }
	b.SetBytes(int64(len(data)))
	b.ReportAllocs()
	for b.Loop() {
		if err := p.Inspect(context.Background(), f, int64(len(data)), engine.Limits{}, emit); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkInspect(b *testing.B) {
	text := bytes.Repeat([]byte("all work and no play makes jack a dull boy\n"), 100)
	elf, err := os.ReadFile(os.Args[0])
	require.NoError(b, err)
	random := make([]byte, 4096)
	rand.New(rand.NewSource(1)).Read(random)
	var many []entry
	for i := range 1000 {
		many = append(many, entry{fmt.Sprint(i), fmt.Appendf(nil, "%d %s", i, text[:1000])})
	}
	b.Run("text 4 KB", func(b *testing.B) { benchmark(b, text) })
	b.Run("data 4 KB", func(b *testing.B) { benchmark(b, random) })
	b.Run("elf", func(b *testing.B) { benchmark(b, elf) })
	b.Run("zip of 1000", func(b *testing.B) { benchmark(b, zipOf(b, zip.Deflate, many...)) })
	b.Run("tar of 1000", func(b *testing.B) { benchmark(b, tarOf(b, many...)) })
	b.Run("gzip of elf", func(b *testing.B) { benchmark(b, gzipOf(b, elf)) })
}
