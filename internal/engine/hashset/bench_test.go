package hashset

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"iter"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

// random yields n random digests, reproducibly.
func random(n int) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		r := rand.NewPCG(1, 2)
		key := make([]byte, 32)
		for i := range n {
			fill(r, key)
			if !yield(Entry{Key: key, Size: AnySize, Name: fmt.Sprintf("Family.%d", i%5000), Severity: threat.High}, nil) {
				return
			}
		}
	}
}

func fill(r *rand.PCG, key []byte) {
	for j := 0; j < len(key); j += 8 {
		binary.LittleEndian.PutUint64(key[j:], r.Uint64())
	}
}

const benchEntries = 1_000_000

func BenchmarkLookupUnknown(b *testing.B) {
	path := filepath.Join(b.TempDir(), "set")
	f, err := os.Create(path)
	require.NoError(b, err)
	_, err = Build(f, SHA256, b.TempDir(), random(benchEntries))
	require.NoError(b, err)
	require.NoError(b, f.Close())
	s := open(b, path)
	r := rand.NewPCG(3, 4)
	key := make([]byte, 32)
	b.ReportAllocs()
	for b.Loop() {
		fill(r, key)
		if _, _, ok, err := s.Lookup(key, 1); ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkLookupKnown(b *testing.B) {
	path := filepath.Join(b.TempDir(), "set")
	f, err := os.Create(path)
	require.NoError(b, err)
	_, err = Build(f, SHA256, b.TempDir(), random(benchEntries))
	require.NoError(b, err)
	require.NoError(b, f.Close())
	s := open(b, path)
	var known [][]byte
	for e := range random(1000) {
		known = append(known, bytes.Clone(e.Key))
	}
	i := 0
	b.ReportAllocs()
	for b.Loop() {
		i = (i + 1) % len(known)
		if _, _, ok, err := s.Lookup(known[i], 1); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}

func BenchmarkBuild(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		_, err := Build(io.Discard, SHA256, b.TempDir(), random(benchEntries))
		require.NoError(b, err)
	}
	b.ReportMetric(float64(benchEntries)*float64(b.N)/b.Elapsed().Seconds(), "entries/s")
}

// BenchmarkTenMillion reports what a set of 10 million entries costs: peak
// resident memory of building, resident memory after 100,000 unknown look-ups,
// and the size of the file. It fails above 64 MB resident.
func BenchmarkTenMillion(b *testing.B) {
	const n = 10_000_000
	path := filepath.Join(b.TempDir(), "set")
	for b.Loop() {
		f, err := os.Create(path)
		require.NoError(b, err)
		_, err = Build(f, SHA256, b.TempDir(), random(n))
		require.NoError(b, err)
		require.NoError(b, f.Close())
	}
	b.ReportMetric(status(b, "VmHWM:"), "MB-build-peak")
	runtime.GC()
	s := open(b, path)
	before := resident(b, path)
	r := rand.NewPCG(3, 4)
	key := make([]byte, 32)
	for range 100_000 {
		fill(r, key)
		_, _, ok, err := s.Lookup(key, 1)
		require.NoError(b, err)
		require.False(b, ok)
	}
	after := resident(b, path)
	require.Less(b, max(before, after), 64.0, "resident megabytes of the set")
	b.ReportMetric(after, "MB-resident")
	st, err := os.Stat(path)
	require.NoError(b, err)
	b.ReportMetric(float64(st.Size())/1e6, "MB-file")
}

// status reads a field of the process's status in megabytes.
func status(b *testing.B, field string) float64 {
	data, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	return kilobytes(b, string(data), field)
}

// resident is how much of the mapping of path is in this process's memory, in
// megabytes: the set keeps nothing else but a few pointers.
func resident(b *testing.B, path string) float64 {
	data, err := os.ReadFile("/proc/self/smaps")
	require.NoError(b, err)
	_, rest, ok := strings.Cut(string(data), path)
	require.True(b, ok, "the index is not mapped")
	return kilobytes(b, rest, "Rss:")
}

func kilobytes(b *testing.B, text, field string) float64 {
	_, rest, ok := strings.Cut(text, field)
	require.True(b, ok)
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	require.NoError(b, err)
	return kb * 1024 / 1e6
}
