//go:build privileged

package e2e

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

// eicar is the EICAR test file followed by white space that makes each n
// another object; the definition allows it. It is put together here so that
// this source is none.
func eicar(n int) string {
	const a, b = `X5O!P%@AP[4\PZX54(P^)7CC)7}$EICAR-STANDARD`, `-ANTIVIRUS-TEST-FILE!$H+H*`
	bits := fmt.Sprintf("%b", n)
	return a + b + strings.NewReplacer("0", " ", "1", "\t").Replace(bits)
}

// write makes a file with its directories.
func write(t *testing.T, path string, data []byte) string {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, data, 0o644))
	return path
}

// run runs a tool in a directory.
func run(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s %v: %s", name, args, out)
}

func zipped(t *testing.T, name, content string) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	w, err := z.Create(name)
	require.NoError(t, err)
	_, err = w.Write([]byte(content))
	require.NoError(t, err)
	require.NoError(t, z.Close())
	return buf.Bytes()
}

func tarred(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := tar.NewWriter(&buf)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(content)), Typeflag: tar.TypeReg}))
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return buf.Bytes()
}

// infectedTree makes a directory with the test file plain, in a zip, in a zip
// in a 7z in a tar.zst, and something clean.
func infectedTree(t *testing.T, bad string) string {
	t.Helper()
	dir := t.TempDir()
	write(t, filepath.Join(dir, "readme.txt"), []byte("nothing to see\n"))
	write(t, filepath.Join(dir, "plain.com"), []byte(bad))
	write(t, filepath.Join(dir, "a.zip"), zipped(t, "in/eicar.com", bad))
	work := t.TempDir()
	write(t, filepath.Join(work, "inner.zip"), zipped(t, "eicar.com", bad))
	run(t, work, "7z", "a", "-bd", "middle.7z", "inner.zip")
	seven, err := os.ReadFile(filepath.Join(work, "middle.7z"))
	require.NoError(t, err)
	write(t, filepath.Join(work, "outer.tar"), tarred(t, "middle.7z", seven))
	run(t, work, "zstd", "-q", "outer.tar", "-o", filepath.Join(dir, "outer.tar.zst"))
	return dir
}

// infectedImage writes an OCI image archive whose second layer holds bad.
func infectedImage(t *testing.T, bad string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = containerdtest.WriteImage(f, "localhost/lazaret/bad:1",
		containerdtest.Layer{{Path: "etc/motd", Data: []byte("hello\n")}},
		containerdtest.Layer{{Path: "opt/eicar.com", Data: []byte(bad)}})
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return path
}

// encryptedZip makes a directory with a zip that needs a password.
func encryptedZip(t *testing.T) string {
	t.Helper()
	dir, work := t.TempDir(), t.TempDir()
	write(t, filepath.Join(work, "secret.txt"), []byte("a secret that nobody can look at\n"))
	run(t, work, "7z", "a", "-bd", "-tzip", "-psecret", filepath.Join(dir, "locked.zip"), "secret.txt")
	return dir
}
