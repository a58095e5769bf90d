//go:build privileged

package zipaes

import (
	"bytes"
	"crypto/rand"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Another implementation reads what this one writes.
func Test7z(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	content := make([]byte, 100_003)
	rand.Read(content)
	f, err := os.Create(filepath.Join(dir, "x.zip"))
	require.NoError(t, err)
	w, err := NewWriter(f, "infected")
	require.NoError(t, err)
	require.NoError(t, w.Add("sample.bin", time.Now(), int64(len(content)), bytes.NewReader(content)))
	require.NoError(t, w.Add("empty", time.Now(), 0, bytes.NewReader(nil)))
	require.NoError(t, w.Close())
	require.NoError(t, f.Close())

	out, err := exec.Command("7z", "x", "-pinfected", "-o"+dir, f.Name()).CombinedOutput()
	require.NoError(t, err, "%s", out)
	got, err := os.ReadFile(filepath.Join(dir, "sample.bin"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	require.FileExists(t, filepath.Join(dir, "empty"))
	out, err = exec.Command("7z", "t", "-pwrong", f.Name()).CombinedOutput()
	require.Error(t, err, "%s", out)
}
