package response

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

// TestMain also runs the children of the crash and container tests.
func TestMain(m *testing.M) {
	if os.Getenv("LAZARET_CRASH_DIR") != "" {
		os.Exit(crashChild())
	}
	if os.Getenv("LAZARET_CONTAINER_DIR") != "" {
		os.Exit(containerChild())
	}
	os.Exit(m.Run())
}

func newVault(t testing.TB, dir string) *Vault {
	v, err := OpenVault(context.Background(), VaultConfig{Dir: dir, Node: "n1", Reserve: -1})
	require.NoError(t, err)
	t.Cleanup(func() { v.Close() })
	_, err = v.Recover(context.Background())
	require.NoError(t, err)
	return v
}

// realTempDir is a temporary directory by the name the kernel knows it under,
// in memory if possible: the tests sync often, and what survives kill -9 does
// not depend on the disk.
func realTempDir(t testing.TB) string {
	dir, err := os.MkdirTemp("/dev/shm", "lazaret-response-")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dir, err = filepath.EvalSymlinks(dir)
	require.NoError(t, err)
	return dir
}

func writeFile(t testing.TB, path, content string) {
	require.NoError(t, os.WriteFile(path, []byte(content), 0o640))
}

func hashOf(t testing.TB, path string) threat.Hash {
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	h, _, err := hashFile(context.Background(), f)
	require.NoError(t, err)
	return h
}

// quarantine takes the file at a host path.
func quarantine(v *Vault, path string, object threat.Hash) (Item, error) {
	o, err := OpenOriginal(Target{Path: path})
	if err != nil {
		return Item{}, err
	}
	defer o.Close()
	return v.Quarantine(context.Background(), o, Meta{
		Finding: "f-" + threat.Printable(filepath.Base(path)), Object: object,
		Workload: threat.Workload{ID: "host", Kind: threat.KindHost},
		Location: threat.Location{Path: threat.Printable(path)},
	})
}

func verdict(v threat.Verdict) func(context.Context, *os.File) (threat.Verdict, error) {
	return func(_ context.Context, f *os.File) (threat.Verdict, error) {
		if _, err := f.Write([]byte("x")); err == nil {
			return "", errors.New("the file to inspect is writable")
		}
		return v, nil
	}
}

func restore(v *Vault, id, path string) (Restored, error) {
	return v.Restore(context.Background(), id, RestoreOptions{Target: Target{Path: path}, Rescan: verdict(threat.Clean)})
}

func readItem(t testing.TB, v *Vault, id string) string {
	r, err := v.Open(context.Background(), id)
	require.NoError(t, err)
	defer r.Close()
	b, err := io.ReadAll(r)
	require.NoError(t, err)
	return string(b)
}

func blobs(t testing.TB, v *Vault) []string {
	entries, err := os.ReadDir(v.blobs)
	require.NoError(t, err)
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// requireNoHidden fails if a directory holds a file with a hidden name.
func requireNoHidden(t testing.TB, dir string) {
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		require.False(t, strings.HasPrefix(e.Name(), ".lazaret-"), e.Name())
	}
}
