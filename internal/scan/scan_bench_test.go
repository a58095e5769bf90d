package scan

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
)

func BenchmarkLookup(b *testing.B) {
	f := newFake()
	s, _ := newService(b, b.TempDir(), f)
	path := filepath.Join(b.TempDir(), "x")
	write(b, path, "harmless")
	old := time.Now().Add(-time.Hour)
	require.NoError(b, os.Chtimes(path, old, old))
	time.Sleep(2 * tick)
	file, err := os.Open(path)
	require.NoError(b, err)
	defer file.Close()
	key, err := KeyOf(file)
	require.NoError(b, err)
	_, err = s.Inspect(context.Background(), Request{File: file, Key: key, Priority: OnAccess})
	require.NoError(b, err)
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := s.Lookup(key); !ok {
			b.Fatal("unknown")
		}
	}
}

func BenchmarkInspectCached(b *testing.B) {
	f := newFake()
	s, _ := newService(b, b.TempDir(), f)
	path := filepath.Join(b.TempDir(), "x")
	write(b, path, "harmless")
	time.Sleep(2 * tick)
	file, err := os.Open(path)
	require.NoError(b, err)
	defer file.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Inspect(context.Background(), Request{File: file, Priority: OnAccess}); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkScan compares a first scan of 10,000 files, whose engine costs
// nothing, with a second one in a new process (a new service on the same
// directory) and a third in the same process.
func BenchmarkScan(b *testing.B) {
	tree := b.TempDir()
	const files = 10_000
	for i := range files {
		write(b, fmt.Sprintf("%s/d%02d/f%05d", tree, i%50, i), fmt.Sprintf("content %d", i))
	}
	time.Sleep(3 * tick)
	scan := func(b *testing.B, s *Service, cached int64) {
		sum, err := newScanner(s).Run(context.Background(), api.ScanRequest{Paths: []string{tree}, All: true}, Options{},
			func(api.ScanLine) error { return nil })
		require.NoError(b, err)
		require.EqualValues(b, files, sum.Clean)
		require.EqualValues(b, cached, sum.Cached)
	}
	dir := b.TempDir()
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			s, _ := newService(b, b.TempDir(), newFake())
			scan(b, s, 0)
		}
		b.ReportMetric(float64(files*b.N)/b.Elapsed().Seconds(), "files/s")
	})
	b.Run("prepare", func(b *testing.B) {
		s, _ := newService(b, dir, newFake())
		if s.cache.Len() == 0 {
			_, err := newScanner(s).Run(context.Background(), api.ScanRequest{Paths: []string{tree}}, Options{}, func(api.ScanLine) error { return nil })
			require.NoError(b, err)
		}
		for b.Loop() {
		}
	})
	b.Run("new process", func(b *testing.B) {
		for b.Loop() {
			s, _ := newService(b, dir, newFake())
			scan(b, s, files)
		}
		b.ReportMetric(float64(files*b.N)/b.Elapsed().Seconds(), "files/s")
	})
	b.Run("same process", func(b *testing.B) {
		s, _ := newService(b, dir, newFake())
		scan(b, s, files)
		for b.Loop() {
			scan(b, s, files)
		}
		b.ReportMetric(float64(files*b.N)/b.Elapsed().Seconds(), "files/s")
	})
}
