package signature

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine/hashset"
)

// bundles publishes n bundles with a rule and a list and returns a client that
// has the last.
func nextBundle(t *testing.T, r *Repository, c *Client, rules string) *Bundle {
	t.Helper()
	_, err := fakeImporter(r, t.TempDir()).Import(t.Context(), Import{
		By: "user:test", Files: tree("a.yar", rules, "l.txt", md5Bad+" X\n"+sha256Bad+" Y\n", "m.txt", md5Bad+" again\n"),
	})
	require.NoError(t, err)
	_, changed, err := c.Update(t.Context())
	require.NoError(t, err)
	require.True(t, changed)
	b, err := c.Bundle()
	require.NoError(t, err)
	return b
}

func openTestStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := OpenStore(dir, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	return s
}

func TestStore(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	c := clientFor(t, t.TempDir(), serve(t, r), nil)
	dir := t.TempDir()
	s := openTestStore(t, dir)
	_, err := s.Active()
	require.ErrorIs(t, err, fs.ErrNotExist)
	for i, rules := range []string{"Bad evil\n", "Bad evil\nbroken\nB b2\n", "Bad evil\nC c2\n"} {
		b := nextBundle(t, r, c, rules)
		compiled, errs, err := s.Compile(t.Context(), b, fakeCompiler{})
		require.NoError(t, err)
		require.Len(t, errs, strings.Count(rules, "broken"))
		require.EqualValues(t, i+1, compiled.Epoch)
		require.EqualValues(t, 2, compiled.Hashes)
		require.Len(t, compiled.Files, 3)
		again, _, err := s.Compile(t.Context(), b, fakeCompiler{err: errors.New("must not compile again")})
		require.NoError(t, err)
		require.Equal(t, compiled, again)
		require.NoError(t, s.Activate(compiled))
		require.NoError(t, s.Activate(compiled))
	}
	s = openTestStore(t, dir)
	active, err := s.Active()
	require.NoError(t, err)
	require.EqualValues(t, 3, active.Epoch)
	previous, err := s.Previous()
	require.NoError(t, err)
	require.EqualValues(t, 2, previous.Epoch)
	require.NoFileExists(t, filepath.Join(dir, "1"))

	f, err := os.Open(filepath.Join(active.Dir, hashset.MD5.File()))
	require.NoError(t, err)
	set, err := hashset.Open(f)
	require.NoError(t, err)
	require.EqualValues(t, 1, set.Len())
	require.NoError(t, set.Close())
	require.NoError(t, s.Activate(previous), "roll-back")
	active, err = s.Active()
	require.NoError(t, err)
	require.EqualValues(t, 2, active.Epoch)
}

func TestDamagedStore(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	node := t.TempDir()
	c := clientFor(t, node, serve(t, r), nil)
	dir := t.TempDir()
	s := openTestStore(t, dir)
	b := nextBundle(t, r, c, "Bad evil\n")
	compiled, _, err := s.Compile(t.Context(), b, fakeCompiler{})
	require.NoError(t, err)
	require.NoError(t, s.Activate(compiled))
	for _, name := range []string{"other.yarc", "md5.set", "sha256.set", "manifest.json"} {
		path := filepath.Join(compiled.Dir, name)
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		data[len(data)/2] ^= 1
		require.NoError(t, os.WriteFile(path, data, 0o600))
		_, err = s.Active()
		require.ErrorIs(t, err, ErrDamaged, name)
		_, _, err = s.Compile(t.Context(), b, fakeCompiler{})
		require.NoError(t, err)
		_, err = s.Active()
		require.NoError(t, err)
	}
	require.NoError(t, os.WriteFile(filepath.Join(compiled.Dir, "manifest.json"), []byte(`{"epoch":1,"files":{"../../x":""}}`), 0o600))
	_, err = s.Active()
	require.ErrorIs(t, err, ErrDamaged)
	require.NoError(t, os.Remove(filepath.Join(dir, "active")))
	require.NoError(t, os.Symlink("/etc", filepath.Join(dir, "active")))
	_, err = s.Active()
	require.ErrorIs(t, err, ErrDamaged)

	// Damaged sources are not compiled.
	blob := c.blobs.path(b.Manifest.Sources[0].Blob)
	data, err := os.ReadFile(blob)
	require.NoError(t, err)
	data[len(data)/2] ^= 1
	require.NoError(t, os.WriteFile(blob, data, 0o600))
	_, _, err = s.Compile(t.Context(), b, fakeCompiler{})
	require.ErrorIs(t, err, ErrDamaged)
	_, changed, err := c.Update(t.Context())
	require.NoError(t, err)
	require.False(t, changed)
	_, _, err = s.Compile(t.Context(), b, fakeCompiler{})
	require.NoError(t, err, "the next update repaired it")
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	require.NoError(t, err)
	require.Empty(t, left)

	// What a crash left half made goes away, but not what is being made.
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".new-old"), 0o700))
	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(dir, ".new-old"), old, old))
	require.NoError(t, os.Mkdir(filepath.Join(dir, ".new-now"), 0o700))
	openTestStore(t, dir)
	require.NoDirExists(t, filepath.Join(dir, ".new-old"))
	require.DirExists(t, filepath.Join(dir, ".new-now"))
}
