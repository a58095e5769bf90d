package signature

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/threat"
)

func openTest(t *testing.T, dir string, now func() time.Time) *Repository {
	t.Helper()
	r, err := OpenRepository(RepositoryConfig{Dir: dir, Now: now})
	require.NoError(t, err)
	t.Cleanup(func() { _ = r.Close() })
	return r
}

// publishText publishes a bundle whose only source has the given content.
func publishText(t *testing.T, r *Repository, text string) threat.Epoch {
	t.Helper()
	s, err := r.Stage(t.Context(), "a.yar", KindYARA, strings.NewReader(text))
	require.NoError(t, err)
	b, err := r.Publish(t.Context(), Draft{By: "user:test", Comment: text, Sources: []Source{s}, Rules: 1})
	require.NoError(t, err)
	return b.Epoch
}

func textOf(t *testing.T, b blobs, m *Manifest) string {
	t.Helper()
	data, err := b.read(m.Sources[0])
	require.NoError(t, err)
	return string(data)
}

func TestPublishListRollback(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := openTest(t, dir, nil)
	require.Nil(t, r.Active())
	list, err := r.List()
	require.NoError(t, err)
	require.Empty(t, list)
	require.EqualValues(t, 1, publishText(t, r, "one"))
	require.EqualValues(t, 2, publishText(t, r, "two"))

	b, err := r.Rollback(t.Context(), 1, "user:other", "two was wrong")
	require.NoError(t, err)
	require.EqualValues(t, 3, b.Epoch)
	require.EqualValues(t, 1, b.RollbackOf)
	require.Equal(t, "one", textOf(t, r.blobs, r.Active()))

	require.NoError(t, r.Close())
	r = openTest(t, dir, nil)
	list, err = r.List()
	require.NoError(t, err)
	require.Len(t, list, 3)
	require.True(t, list[0].Active)
	require.Equal(t, "user:other", list[0].By)
	require.EqualValues(t, 1, list[2].Epoch)

	_, err = r.Rollback(t.Context(), 9, "x", "")
	require.ErrorIs(t, err, ErrNotFound)
	_, err = r.Publish(t.Context(), Draft{Sources: []Source{{Name: "x", Kind: KindYARA}}})
	require.ErrorContains(t, err, "content of source x is not there")
	_, err = r.Publish(t.Context(), Draft{Sources: []Source{{Name: "../x", Kind: KindYARA}}})
	require.ErrorIs(t, err, ErrInvalid)
	_, err = OpenRepository(RepositoryConfig{Dir: dir})
	require.ErrorContains(t, err, "another process")
}

func TestKeysArePrivate(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	openTest(t, dir, nil)
	for _, role := range roleNames {
		st, err := os.Stat(filepath.Join(dir, "keys", role+".key"))
		require.NoError(t, err)
		require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	}
}

func TestCollect(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r, err := OpenRepository(RepositoryConfig{Dir: dir, Keep: 3})
	require.NoError(t, err)
	for i := range 25 {
		publishText(t, r, fmt.Sprint("bundle ", i))
	}
	old := time.Now().Add(-48 * time.Hour)
	blobs, err := os.ReadDir(r.blobs.dir)
	require.NoError(t, err)
	for _, b := range blobs {
		require.NoError(t, os.Chtimes(filepath.Join(r.blobs.dir, b.Name()), old, old))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "metadata", ".new-crash"), nil, 0o600))
	require.NoError(t, r.Close())
	r, err = OpenRepository(RepositoryConfig{Dir: dir, Keep: 3})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	for d, want := range map[string]int{"blobs": 3, "bundles": 3, "targets": 3, "metadata": 2 + 2*16} {
		entries, err := os.ReadDir(filepath.Join(dir, d))
		require.NoError(t, err)
		require.Len(t, entries, want, d)
	}
	_, err = r.Rollback(t.Context(), 23, "user:test", "")
	require.NoError(t, err)
	require.Equal(t, "bundle 22", textOf(t, r.blobs, r.Active()))
}

func TestDamagedRepository(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"metadata/timestamp.json", "metadata/1.snapshot.json", "metadata/1.targets.json", "metadata/1.root.json", "targets/*", "keys/targets.key"} {
		dir := t.TempDir()
		r := openTest(t, dir, nil)
		publishText(t, r, "one")
		require.NoError(t, r.Close())
		paths, err := filepath.Glob(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Len(t, paths, 1)
		data, err := os.ReadFile(paths[0])
		require.NoError(t, err)
		data[len(data)/2] ^= 1
		require.NoError(t, os.WriteFile(paths[0], data, 0o600))
		_, err = OpenRepository(RepositoryConfig{Dir: dir})
		require.ErrorContains(t, err, "loading", name)
	}
}

// Publishing is interrupted before every single change of the disk. Whatever
// was done before, the repository opens, holds the old or the new bundle, a
// client accepts it, and publishing works again.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	for at := 0; ; at++ {
		dir, node := t.TempDir(), t.TempDir()
		r := openTest(t, dir, nil)
		publishText(t, r, "old")
		server := httptest.NewServer(r.Handler())
		c := clientFor(t, node, server.URL, nil)
		_, _, err := c.Update(t.Context())
		require.NoError(t, err)
		server.Close()

		steps := 0
		r.step = func(string) error {
			if steps++; steps > at {
				return crash
			}
			return nil
		}
		s, err := r.Stage(t.Context(), "a.yar", KindYARA, strings.NewReader("new"))
		if err == nil {
			_, err = r.Publish(t.Context(), Draft{By: "user:test", Sources: []Source{s}})
		}
		finished := err == nil
		if !finished {
			require.ErrorIs(t, err, crash)
		}
		require.NoError(t, r.Close())

		r = openTest(t, dir, nil)
		text := textOf(t, r.blobs, r.Active())
		if finished {
			require.Equal(t, "new", text)
		} else {
			require.Contains(t, []string{"old", "new"}, text)
		}
		server = httptest.NewServer(r.Handler())
		c = clientFor(t, node, server.URL, nil)
		_, _, err = c.Update(t.Context())
		require.NoError(t, err)
		b, err := c.Bundle()
		require.NoError(t, err)
		require.Equal(t, text, textOf(t, c.blobs, b.Manifest))
		publishText(t, r, "newer")
		_, changed, err := c.Update(t.Context())
		require.NoError(t, err)
		require.True(t, changed)
		server.Close()
		if finished {
			require.Greater(t, at, 10, "the steps are not counted")
			return
		}
	}
}

// The first start is interrupted before every change too.
func TestCrashAtFirstStart(t *testing.T) {
	t.Parallel()
	crash := errors.New("crash")
	for at := 0; ; at++ {
		dir, steps := t.TempDir(), 0
		r, err := openRepository(RepositoryConfig{Dir: dir}, func(string) error {
			if steps++; steps > at {
				return crash
			}
			return nil
		})
		if err == nil {
			require.NoError(t, r.Close())
			require.Greater(t, at, 8)
			return
		}
		require.ErrorIs(t, err, crash)
		publishText(t, openTest(t, dir, nil), "works")
	}
}

func TestRenew(t *testing.T) {
	t.Parallel()
	dir, now := t.TempDir(), time.Now()
	r := openTest(t, dir, func() time.Time { return now })
	publishText(t, r, "one")
	c := clientFor(t, t.TempDir(), serve(t, r), func() time.Time { return now })
	versions := func() [4]int64 {
		s := r.state
		return [4]int64{s.root.Signed.Version, s.targets.Signed.Version, s.snapshot.Signed.Version, s.timestamp.Signed.Version}
	}
	for _, c2 := range []struct {
		pass time.Duration
		want [4]int64
	}{
		{time.Hour, [4]int64{1, 1, 1, 1}},
		{25 * time.Hour, [4]int64{1, 1, 1, 2}},
		{70 * 24 * time.Hour, [4]int64{1, 2, 2, 3}},
		{8 * 365 * 24 * time.Hour, [4]int64{2, 3, 3, 4}},
	} {
		now = now.Add(c2.pass)
		require.NoError(t, r.Renew())
		require.Equal(t, c2.want, versions())
		epoch, _, err := c.Update(t.Context())
		require.NoError(t, err)
		require.EqualValues(t, 1, epoch)
	}
	require.NoError(t, r.Close())
	now = now.Add(200 * 24 * time.Hour) // switched off for long
	r = openTest(t, dir, func() time.Time { return now })
	require.Equal(t, [4]int64{2, 4, 4, 5}, versions())
}

func TestRunRaisesCondition(t *testing.T) {
	t.Parallel()
	now, set := time.Now(), &condition.Set{}
	r, err := OpenRepository(RepositoryConfig{Dir: t.TempDir(), Conditions: set, Now: func() time.Time { return now }})
	require.NoError(t, err)
	defer func() { require.NoError(t, r.Close()) }()
	publishText(t, r, "one")
	now = now.Add(48 * time.Hour)
	r.step = func(string) error { return errors.New("disk full") }
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, r.Run(ctx))
	require.Len(t, set.List(), 1)
	require.Contains(t, set.List()[0].Text, "disk full")
	r.step = noStep
	require.NoError(t, r.Run(ctx))
	require.Empty(t, set.List())
}

func TestHandler(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	publishText(t, r, strings.Repeat("content ", 100))
	base := serve(t, r)
	blob := "/blobs/" + r.Active().Sources[0].Blob.String()
	get := func(method, path string, header ...string) (*http.Response, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, base+path, nil)
		require.NoError(t, err)
		if len(header) > 0 {
			req.Header.Set(header[0], header[1])
		}
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		require.NoError(t, res.Body.Close())
		return res, body
	}
	for _, path := range []string{"/metadata/timestamp.json", "/metadata/1.root.json", blob} {
		res, body := get("GET", path)
		require.Equal(t, 200, res.StatusCode, path)
		require.NotEmpty(t, body)
		tag := res.Header.Get("ETag")
		res, _ = get("GET", path, "If-None-Match", tag)
		require.Equal(t, 304, res.StatusCode, path)
		res, part := get("GET", path, "Range", "bytes=2-5")
		require.Equal(t, 206, res.StatusCode)
		require.True(t, bytes.Equal(body[2:6], part))
	}
	for _, path := range []string{"/", "/keys/root.key", "/metadata/../keys/root.key", "/metadata/%2e%2e/keys/root.key", "/blobs/", "/blobs/new-1", "/bundles/1.json", "/lock", "/metadata/", "/targets/" + strings.Repeat("0", 64) + ".bundle.json"} {
		res, _ := get("GET", path)
		require.Equal(t, 404, res.StatusCode, path)
	}
	res, _ := get("POST", blob)
	require.Equal(t, 405, res.StatusCode)
}
