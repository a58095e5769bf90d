package signature

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func serve(t *testing.T, r *Repository) string {
	t.Helper()
	s := httptest.NewServer(r.Handler())
	t.Cleanup(s.Close)
	return s.URL
}

func clientFor(t *testing.T, dir, url string, now func() time.Time) *Client {
	t.Helper()
	c, err := NewClient(ClientConfig{Dir: dir, URL: url, Now: now})
	require.NoError(t, err)
	return c
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	c := clientFor(t, t.TempDir(), serve(t, r), nil)
	_, err := c.Bundle()
	require.ErrorIs(t, err, ErrUnpublished)
	_, _, err = c.Update(t.Context())
	require.ErrorIs(t, err, ErrUnpublished)

	publishText(t, r, "one")
	epoch, changed, err := c.Update(t.Context())
	require.NoError(t, err)
	require.True(t, changed)
	require.EqualValues(t, 1, epoch)
	epoch, changed, err = c.Update(t.Context())
	require.NoError(t, err)
	require.False(t, changed)
	require.EqualValues(t, 1, epoch)

	publishText(t, r, "two")
	_, err = r.Rollback(t.Context(), 1, "user:test", "")
	require.NoError(t, err)
	epoch, changed, err = c.Update(t.Context())
	require.NoError(t, err)
	require.True(t, changed)
	require.EqualValues(t, 3, epoch)
	b, err := c.Bundle()
	require.NoError(t, err)
	require.Equal(t, "one", textOf(t, c.blobs, b.Manifest))
}

func TestUpdateOverUnixSocket(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	publishText(t, r, "one")
	dir, err := os.MkdirTemp("", "sig") // a socket's path must be short
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	l, err := net.Listen("unix", filepath.Join(dir, "s"))
	require.NoError(t, err)
	s := &httptest.Server{Listener: l, Config: &http.Server{Handler: http.StripPrefix("/api/v1/signatures/tuf", r.Handler())}}
	s.Start()
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(dir, "s"))
	}}}
	root, err := r.Root()
	require.NoError(t, err)
	c, err := NewClient(ClientConfig{Dir: t.TempDir(), URL: "http://manager/api/v1/signatures/tuf/", HTTP: client, Root: root})
	require.NoError(t, err)
	epoch, _, err := c.Update(t.Context())
	require.NoError(t, err)
	require.EqualValues(t, 1, epoch)
}

// copyDir copies a repository so that an attacker can serve an old one.
func copyDir(t *testing.T, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	require.NoError(t, os.CopyFS(to, os.DirFS(dir)))
	return to
}

// files serves a directory as a mirror does.
func files(t *testing.T, dir string) string {
	t.Helper()
	s := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(s.Close)
	return s.URL
}

// Every attack of a mirror on an up-to-date client is refused with a clear
// error, and the client keeps what it has.
func TestAttacks(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	r := openTest(t, dir, nil)
	publishText(t, r, "one")
	before := copyDir(t, dir)
	publishText(t, r, "two")
	good := copyDir(t, dir)
	publishText(t, r, "three")
	next := copyDir(t, dir)
	other := t.TempDir()
	stranger := openTest(t, other, nil)
	for range 5 {
		publishText(t, stranger, "evil")
	}
	edit := func(dir, name string, f func([]byte) []byte) {
		paths, err := filepath.Glob(filepath.Join(dir, name))
		require.NoError(t, err)
		require.NotEmpty(t, paths)
		for _, p := range paths {
			data, err := os.ReadFile(p)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(p, f(data), 0o600))
		}
	}
	from := func(source string) func(dir, name string) {
		return func(dir, name string) {
			data, err := os.ReadFile(filepath.Join(source, name))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(dir, name), data, 0o600))
		}
	}
	for _, c := range []struct {
		name   string
		base   string
		attack func(dir string)
		now    time.Time
		want   error
	}{
		{"replayed repository", before, func(string) {}, now, ErrOld},
		{"replayed timestamp", next, func(d string) { from(before)(d, "metadata/timestamp.json") }, now, ErrOld},
		{"mixed snapshot", next, func(d string) {
			data, err := os.ReadFile(filepath.Join(d, "metadata/1.snapshot.json"))
			require.NoError(t, err)
			edit(d, "metadata/3.snapshot.json", func([]byte) []byte { return data })
		}, now, ErrUntrusted},
		{"mixed targets", next, func(d string) {
			data, err := os.ReadFile(filepath.Join(d, "metadata/1.targets.json"))
			require.NoError(t, err)
			edit(d, "metadata/3.targets.json", func([]byte) []byte { return data })
		}, now, ErrUntrusted},
		{"expired", good, func(string) {}, now.Add(timestampLife + time.Hour), ErrExpired},
		{"foreign keys", other, func(string) {}, now, ErrUntrusted},
		{"forged timestamp", next, func(d string) {
			edit(d, "metadata/timestamp.json", func(b []byte) []byte {
				return []byte(strings.Replace(string(b), `"version":3`, `"version":4`, 1))
			})
		}, now, ErrUntrusted},
		{"tampered manifest", next, func(d string) {
			edit(d, "targets/*", func(b []byte) []byte { return []byte(strings.ReplaceAll(string(b), "user:test", "user:evil")) })
		}, now, ErrUntrusted},
		{"tampered content", next, func(d string) {
			edit(d, "blobs/*", func(b []byte) []byte { b[len(b)-1] ^= 1; return b })
		}, now, ErrUntrusted},
		{"endless content", next, func(d string) {
			edit(d, "blobs/*", func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) })
		}, now, ErrUntrusted},
		{"endless timestamp", next, func(d string) {
			edit(d, "metadata/timestamp.json", func(b []byte) []byte { return append(b, make([]byte, 1<<20)...) })
		}, now, ErrUntrusted},
		{"not JSON", next, func(d string) {
			edit(d, "metadata/timestamp.json", func([]byte) []byte { return []byte("<html>") })
		}, now, nil},
		{"missing content", next, func(d string) { require.NoError(t, os.RemoveAll(filepath.Join(d, "blobs"))) }, now, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			node := t.TempDir()
			cl := clientFor(t, node, files(t, good), nil)
			_, _, err := cl.Update(t.Context())
			require.NoError(t, err)
			evil := copyDir(t, c.base)
			c.attack(evil)
			cl = clientFor(t, node, files(t, evil), func() time.Time { return c.now })
			epoch, changed, err := cl.Update(t.Context())
			require.Error(t, err)
			if c.want != nil {
				require.ErrorIs(t, err, c.want)
			}
			require.False(t, changed)
			require.EqualValues(t, 2, epoch)
			b, err := cl.Bundle()
			require.NoError(t, err)
			require.Equal(t, "two", textOf(t, cl.blobs, b.Manifest))

			cl = clientFor(t, node, files(t, next), nil) // the attack left no trace
			epoch, changed, err = cl.Update(t.Context())
			require.NoError(t, err)
			require.True(t, changed)
			require.EqualValues(t, 3, epoch)
		})
	}
}

// What a power cut can do to the node's own files is repaired by the next
// update, without accepting an older bundle.
func TestDamagedClient(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openTest(t, dir, nil)
	publishText(t, r, "one")
	old := copyDir(t, dir)
	publishText(t, r, "two")
	url := serve(t, r)
	for _, name := range []string{"metadata/timestamp.json", "metadata/snapshot.json", "metadata/targets.json", "metadata/root.json", "bundle.json"} {
		node := t.TempDir()
		c := clientFor(t, node, url, nil)
		_, _, err := c.Update(t.Context())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(node, name), []byte(`{"signed":`), 0o600))
		_, _, err = clientFor(t, node, files(t, old), nil).Update(t.Context())
		require.ErrorIs(t, err, ErrOld, name)
		epoch, _, err := c.Update(t.Context())
		require.NoError(t, err, name)
		require.EqualValues(t, 2, epoch)
	}
}

func TestUpdateCancelled(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	publishText(t, r, "one")
	c := clientFor(t, t.TempDir(), serve(t, r), nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := c.Update(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
