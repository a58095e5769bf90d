package response

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/response/seal"
	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

func TestQuarantineAndRestore(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "bad\xff\xfe name")
	writeFile(t, path, "malicious content")
	require.NoError(t, unix.Chmod(path, 0o4751))
	when := time.Date(2020, 2, 3, 4, 5, 6, 789, time.UTC)
	require.NoError(t, os.Chtimes(path, when, when))
	xattrs := unix.Setxattr(path, "user.note", []byte("kept"), 0) == nil
	object := hashOf(t, path)

	item, err := quarantine(v, path, object)
	require.NoError(t, err)
	require.NoFileExists(t, path)
	requireNoHidden(t, dir)
	require.Equal(t, "held", item.State)
	require.Equal(t, "malicious content", readItem(t, v, item.ID))
	require.Equal(t, int64(17), item.Size)
	require.Contains(t, item.Location.Path, `bad\xff\xfe name`)
	b, err := os.ReadFile(v.blob(object))
	require.NoError(t, err)
	require.False(t, bytes.Contains(b, []byte("malicious")))
	got, err := v.Get(context.Background(), item.ID)
	require.NoError(t, err)
	require.Equal(t, item, got)
	got, err = v.ByFinding(context.Background(), item.Finding)
	require.NoError(t, err)
	require.Equal(t, item.ID, got.ID)

	r, err := restore(v, item.ID, path)
	require.NoError(t, err)
	require.Equal(t, path, r.Path)
	require.Equal(t, threat.Clean, r.Verdict)
	require.Empty(t, r.Refused)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o751)|os.ModeSetuid, info.Mode())
	require.True(t, when.Equal(info.ModTime()), "%s", info.ModTime())
	require.Equal(t, object, hashOf(t, path))
	if xattrs {
		value := make([]byte, 10)
		n, err := unix.Getxattr(path, "user.note", value)
		require.NoError(t, err)
		require.Equal(t, "kept", string(value[:n]))
	}
	requireNoHidden(t, dir)
	require.Empty(t, blobs(t, v), "the vault let the content go")
	got, err = v.Get(context.Background(), item.ID)
	require.NoError(t, err)
	require.Equal(t, "restored", got.State)
	require.Equal(t, path, string(got.RestoredTo))
	_, err = restore(v, item.ID, path)
	require.ErrorIs(t, err, ErrState)
	_, err = v.Open(context.Background(), item.ID)
	require.ErrorIs(t, err, ErrState)
}

func TestRestoreNeverReplaces(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	long := strings.Repeat("n", 250)
	for _, name := range []string{"x", long} {
		for _, want := range []string{name + ".restored-1", name + ".restored-2"} {
			want = want[:min(len(want), 255)]
			if len(name) == len(long) {
				want = restoredName(long, int(want[len(want)-1]-'0'))
				if want == restoredName(long, 0) {
					continue
				}
			}
			path := filepath.Join(dir, name)
			require.NoError(t, os.WriteFile(path, []byte(want), 0o600))
			item, err := quarantine(v, path, threat.Hash{})
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(path, []byte("newer"), 0o600))
			r, err := restore(v, item.ID, path)
			require.NoError(t, err)
			require.LessOrEqual(t, len(filepath.Base(r.Path)), 255)
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, "newer", string(b))
			b, err = os.ReadFile(r.Path)
			require.NoError(t, err)
			require.Equal(t, want, string(b))
		}
	}
	require.FileExists(t, filepath.Join(dir, "x.restored-1"))
	require.FileExists(t, filepath.Join(dir, "x.restored-2"))
}

func TestRestoreAsksTheEngine(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	item, err := quarantine(v, path, threat.Hash{})
	require.NoError(t, err)
	try := func(verdict func(context.Context, *os.File) (threat.Verdict, error), allowed bool) error {
		_, err := v.Restore(context.Background(), item.ID, RestoreOptions{Target: Target{Path: path}, Rescan: verdict, Allowed: allowed})
		return err
	}
	require.ErrorIs(t, try(verdict(threat.Malicious), false), ErrStillMalicious)
	require.ErrorIs(t, try(verdict(threat.Suspicious), false), ErrStillMalicious)
	require.ErrorIs(t, try(verdict(threat.Error), false), ErrNotInspected)
	require.ErrorIs(t, try(verdict(""), false), ErrNotInspected)
	require.ErrorIs(t, try(nil, true), ErrNotInspected)
	require.ErrorIs(t, try(func(context.Context, *os.File) (threat.Verdict, error) { return threat.Clean, os.ErrClosed }, false), ErrNotInspected)
	require.NoFileExists(t, path)
	requireNoHidden(t, dir)
	require.Equal(t, "bad", readItem(t, v, item.ID))
	require.NoError(t, try(verdict(threat.Malicious), true))
	require.FileExists(t, path)
	require.ErrorIs(t, func() error { _, err := restore(v, "nope", path); return err }(), ErrNoItem)
}

func TestRestoreIntoWrongPlaces(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	item, err := quarantine(v, path, threat.Hash{})
	require.NoError(t, err)
	require.NoError(t, os.Symlink(dir, filepath.Join(dir, "link")))
	for target, want := range map[string]error{
		filepath.Join(dir, "none", "x"): ErrGone,
		filepath.Join(dir, "link", "x"): ErrSymlink,
		dir + "/../x":                   nil,
		"relative":                      nil,
		"/":                             nil,
	} {
		_, err := restore(v, item.ID, target)
		require.Error(t, err, target)
		if want != nil {
			require.ErrorIs(t, err, want, target)
		}
	}
	require.Equal(t, "bad", readItem(t, v, item.ID))
}

func TestContentIsStoredOnce(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	var ids []string
	for _, name := range []string{"a", "b", "c"} {
		writeFile(t, filepath.Join(dir, name), "same")
		item, err := quarantine(v, filepath.Join(dir, name), threat.Hash{})
		require.NoError(t, err)
		ids = append(ids, item.ID)
	}
	require.Len(t, blobs(t, v), 1)
	_, err := v.Purge(ctx, ids[0])
	require.NoError(t, err)
	_, err = restore(v, ids[1], filepath.Join(dir, "b"))
	require.NoError(t, err)
	require.Equal(t, "same", readItem(t, v, ids[2]), "the last item still has its content")
	item, err := v.Purge(ctx, ids[2])
	require.NoError(t, err)
	require.Equal(t, "purged", item.State)
	require.Empty(t, blobs(t, v))
	_, err = v.Purge(ctx, ids[2])
	require.ErrorIs(t, err, ErrState)
}

func TestDamagedBlobIsNotTrusted(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "a")
	writeFile(t, path, "same")
	first, err := quarantine(v, path, threat.Hash{})
	require.NoError(t, err)
	require.NoError(t, os.Truncate(v.blob(first.Object), 90))
	r, err := v.Open(ctx, first.ID)
	require.NoError(t, err)
	_, err = r.Read(make([]byte, 10))
	require.ErrorIs(t, err, seal.ErrDamaged)
	require.NoError(t, r.Close())
	_, err = restore(v, first.ID, path)
	require.ErrorIs(t, err, seal.ErrDamaged)
	require.NoFileExists(t, path)

	writeFile(t, path, "same")
	second, err := quarantine(v, path, threat.Hash{})
	require.NoError(t, err)
	require.Equal(t, "same", readItem(t, v, second.ID))
	require.Equal(t, "same", readItem(t, v, first.ID), "and the older item has its content again")
}

func TestListAndExpire(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	var want []string
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		writeFile(t, filepath.Join(dir, name), name)
		item, err := quarantine(v, filepath.Join(dir, name), threat.Hash{})
		require.NoError(t, err)
		want = append([]string{item.ID}, want...)
	}
	var got []string
	for cursor, pages := "", 0; pages == 0 || cursor != ""; pages++ {
		var items []Item
		var err error
		items, cursor, err = v.List(ctx, cursor, 2)
		require.NoError(t, err)
		for _, i := range items {
			got = append(got, i.ID)
		}
	}
	require.Equal(t, want, got)

	purged, err := v.Expire(ctx, time.Now().Add(v.config.Retention-time.Hour))
	require.NoError(t, err)
	require.Empty(t, purged)
	later := time.Now().Add(v.config.Retention + time.Hour)
	purged, err = v.Expire(ctx, later)
	require.NoError(t, err)
	require.Len(t, purged, 5)
	require.Empty(t, blobs(t, v))
	items, _, err := v.List(ctx, "", 10)
	require.NoError(t, err)
	require.Empty(t, items, "records that ended long ago are forgotten")
}

func TestStoreLeavesTheFile(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "a")
	writeFile(t, path, "evidence")
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	item, err := v.Store(ctx, f, Meta{Object: hashOf(t, path), Location: threat.Location{Path: path}})
	require.NoError(t, err)
	require.Equal(t, "evidence", readItem(t, v, item.ID))
	require.FileExists(t, path)
	_, err = v.Store(ctx, f, Meta{Object: threat.Hash{1}})
	require.ErrorIs(t, err, ErrChanged)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	_, err = v.Store(cancelled, f, Meta{})
	require.ErrorIs(t, err, context.Canceled)
	d, err := os.Open(dir)
	require.NoError(t, err)
	defer d.Close()
	_, err = v.Store(ctx, d, Meta{})
	require.ErrorIs(t, err, ErrNotRegular)
	require.Len(t, blobs(t, v), 1)
}

func TestKey(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	state, dir := realTempDir(t), realTempDir(t)
	v := newVault(t, state)
	key := filepath.Join(state, "vault.key")
	info, err := os.Stat(key)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	writeFile(t, filepath.Join(dir, "a"), "x")
	item, err := quarantine(v, filepath.Join(dir, "a"), threat.Hash{})
	require.NoError(t, err)
	require.NoError(t, v.Close())

	v = newVault(t, state)
	require.Equal(t, "x", readItem(t, v, item.ID))
	require.NoError(t, v.Close())

	require.NoError(t, os.Chmod(key, 0o644))
	_, err = OpenVault(ctx, VaultConfig{Dir: state})
	require.ErrorContains(t, err, "others may read it")
	require.NoError(t, os.Remove(key))
	_, err = OpenVault(ctx, VaultConfig{Dir: state})
	require.ErrorIs(t, err, os.ErrNotExist, "a new key would make the items unreadable")
	require.NoFileExists(t, key)
	require.NoError(t, os.WriteFile(key, []byte("short"), 0o600))
	_, err = OpenVault(ctx, VaultConfig{Dir: state})
	require.ErrorContains(t, err, "5 bytes, want 32")
}

func TestDamagedDatabaseIsAnError(t *testing.T) {
	t.Parallel()
	state := realTempDir(t)
	require.NoError(t, newVault(t, state).Close())
	require.NoError(t, os.WriteFile(filepath.Join(state, "vault.db"), bytes.Repeat([]byte("garbage!"), 4096), 0o600))
	_, err := OpenVault(context.Background(), VaultConfig{Dir: state})
	require.ErrorIs(t, err, sqlite.ErrCorrupt)
}

func TestExport(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	writeFile(t, filepath.Join(dir, "a"), "x")
	item, err := quarantine(v, filepath.Join(dir, "a"), threat.Hash{})
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, v.Export(ctx, item.ID, "infected", &b))
	require.True(t, bytes.HasPrefix(b.Bytes(), []byte("PK")))
	require.ErrorContains(t, v.Export(ctx, item.ID, "", &b), "password is empty")
	require.ErrorIs(t, v.Export(ctx, "nope", "x", &b), ErrNoItem)
	evil := Item{Path: []byte("/x/..\\c:\n\xff")}
	require.Equal(t, "0000000000000000-.._c__\\xff.quarantined", strings.ReplaceAll(memberName(&evil), "_xff", `\xff`))
}

// The same file reported many times at once is taken once.
func TestConcurrentQuarantine(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	object := hashOf(t, path)
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := quarantine(v, path, object); err == nil {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), taken.Load())
	items, _, err := v.List(context.Background(), "", 10)
	require.NoError(t, err)
	require.Len(t, items, 1)
	require.Equal(t, "bad", readItem(t, v, items[0].ID))

	var back atomic.Int32
	for range 8 {
		wg.Go(func() {
			if _, err := restore(v, items[0].ID, path); err == nil {
				back.Add(1)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), back.Load())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
}
