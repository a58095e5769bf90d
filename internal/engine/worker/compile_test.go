package worker

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func compileWith(t *testing.T, ctx context.Context, dir string, texts ...string) (*CompileReport, error) {
	t.Helper()
	s, err := newSpawner(os.Args[0], 0, 0)
	require.NoError(t, err)
	defer s.close()
	c := compiler{spawner: s, args: []string{"fake-compile"}}
	var in CompileRequest
	for i, text := range texts {
		in.Sources = append(in.Sources, Source{Name: string(rune('a' + i)), Text: []byte(text)})
	}
	return c.compile(ctx, in, dir)
}

func TestCompile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, err := compileWith(t, context.Background(), dir, "one", "two")
	require.NoError(t, err)
	require.Equal(t, 2, r.Rules)
	require.Empty(t, r.Errors)
	for _, name := range CompiledFiles {
		b, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, name, string(b))
		digest := sha256.Sum256(b)
		require.Equal(t, hex.EncodeToString(digest[:]), r.Files[name])
	}
}

// A source that crashes the compiler is named; the others are compiled.
func TestCompileLeavesOutWhatCrashes(t *testing.T) {
	t.Parallel()
	r, err := compileWith(t, context.Background(), t.TempDir(), "1", "2", "CRASH", "4", "CRASH", "6", "7")
	require.NoError(t, err)
	require.Equal(t, 5, r.Rules)
	require.Len(t, r.Errors, 2)
	require.Equal(t, "c", r.Errors[0].File)
	require.Equal(t, "e", r.Errors[1].File)
	require.Contains(t, r.Errors[0].Text, "the rule compiler crashed")
}

func TestCompileFailures(t *testing.T) {
	t.Parallel()
	_, err := compileWith(t, context.Background(), t.TempDir(), "FAIL")
	require.ErrorContains(t, err, "no memory")
	_, err = compileWith(t, context.Background(), t.TempDir(), "GARBAGE")
	require.ErrorContains(t, err, "reading the rule compiler's report")
	_, err = compileWith(t, context.Background(), "/nowhere")
	require.ErrorContains(t, err, "creating compiled rules")
	_, err = Compile(context.Background(), "/nowhere/lazaret-engine", CompileRequest{}, t.TempDir())
	require.ErrorContains(t, err, "opening the engine program")
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err = compileWith(t, ctx, t.TempDir(), "HANG")
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(start), 5*time.Second)
}
