package signature

import (
	"bufio"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// digests streams n random SHA-256 digests as a plain list.
func digests(n int) io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		var (
			out  = bufio.NewWriterSize(w, 64<<10)
			seed = rand.NewChaCha8([32]byte{1})
			key  [32]byte
			line []byte
		)
		for range n {
			_, _ = seed.Read(key[:]) // never fails
			line = append(hex.AppendEncode(line[:0], key[:]), " Some.Family\n"...)
			if _, err := out.Write(line); err != nil {
				return // the reader is gone
			}
		}
		w.CloseWithError(out.Flush())
	}()
	return r
}

// BenchmarkImportHashes imports, compiles and publishes
// one list of a million digests. LAZARET_BENCH_HASHES changes the number.
func BenchmarkImportHashes(b *testing.B) {
	n := 1_000_000
	if s := os.Getenv("LAZARET_BENCH_HASHES"); s != "" {
		var err error
		n, err = strconv.Atoi(s)
		require.NoError(b, err)
	}
	for b.Loop() {
		r, err := OpenRepository(RepositoryConfig{Dir: b.TempDir()})
		require.NoError(b, err)
		list := digests(n)
		i := fakeImporter(r, b.TempDir())
		i.c.Corpus = Corpus{}
		report, err := i.Import(b.Context(), Import{By: "user:test", Files: func(yield func(File, error) bool) {
			yield(File{Name: "list.txt", Content: list}, nil)
		}})
		require.NoError(b, err)
		require.NoError(b, list.Close())
		require.NotNil(b, report.Bundle, report.SelfTest)
		require.EqualValues(b, n, report.Hashes)
		require.NoError(b, r.Close())
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "digests/s")
	status, err := os.ReadFile("/proc/self/status")
	require.NoError(b, err)
	_, rest, _ := strings.Cut(string(status), "VmHWM:")
	kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
	require.NoError(b, err)
	b.ReportMetric(kb/1000, "MB-peak")
}
