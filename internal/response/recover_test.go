package response

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

// crash makes f panic at a step and opens the vault anew, as after a crash.
func crash(t *testing.T, v *Vault, at string, f func()) *Vault {
	v.step = func(s string) {
		if s == at {
			panic("crash at " + at)
		}
	}
	require.PanicsWithValue(t, "crash at "+at, f)
	require.NoError(t, v.Close())
	again, err := OpenVault(context.Background(), VaultConfig{Dir: v.config.Dir, Reserve: -1})
	require.NoError(t, err)
	t.Cleanup(func() { again.Close() })
	return again
}

func recoverOne(t *testing.T, v *Vault) Recovered {
	all, err := v.Recover(context.Background())
	require.NoError(t, err)
	require.Len(t, all, 1)
	again, err := v.Recover(context.Background())
	require.NoError(t, err)
	require.Empty(t, again)
	return all[0]
}

func TestRecoverSaysWhatItDid(t *testing.T) {
	t.Parallel()
	for at, want := range map[string]Recovered{
		"store: blob durable":  {What: "quarantine"},
		"quarantine: removing": {What: "quarantine", Done: true},
		"remove: unlinked":     {What: "quarantine", Done: true},
	} {
		v, dir := newVault(t, realTempDir(t)), realTempDir(t)
		path := filepath.Join(dir, "x")
		writeFile(t, path, "bad")
		v = crash(t, v, at, func() { quarantine(v, path, threat.Hash{}) })
		got := recoverOne(t, v)
		require.Equal(t, "f-x", got.Item.Finding)
		require.Equal(t, want, Recovered{What: got.What, Done: got.Done}, at)
		_, err := os.Stat(path)
		require.Equal(t, want.Done, os.IsNotExist(err))
	}
}

// File systems without RENAME_NOREPLACE: between link and unlink both names
// exist.
func TestRecoverRelinked(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	v = crash(t, v, "quarantine: removing", func() { quarantine(v, path, threat.Hash{}) })
	items, err := v.query(context.Background(), "phase = '"+phaseRemoving+"'")
	require.NoError(t, err)
	hidden := filepath.Join(dir, items[0].Work.Tmp)
	require.NoError(t, os.Link(path, hidden))
	require.True(t, recoverOne(t, v).Done)
	require.NoFileExists(t, path)
	require.NoFileExists(t, hidden)

	v.named = true
	v = crash(t, v, "restore: named", func() { restore(v, items[0].ID, path) })
	require.NoError(t, os.Link(hidden, path))
	require.True(t, recoverOne(t, v).Done)
	require.FileExists(t, path)
	require.NoFileExists(t, hidden)

	p, err := openPlace("/", path)
	require.NoError(t, err)
	defer p.close()
	writeFile(t, path+"2", "other")
	require.ErrorIs(t, p.relink("x", "x2"), os.ErrExist)
	require.NoError(t, p.relink("x", "x3"))
	require.NoFileExists(t, path)
	require.FileExists(t, path+"3")
}

// The rename caught another file and the crash came before it got its name
// back; meanwhile a third one has that name.
func TestRecoverGivesAnotherFileItsNameBack(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	v = crash(t, v, "quarantine: removing", func() { quarantine(v, path, threat.Hash{}) })
	items, err := v.query(context.Background(), "phase = '"+phaseRemoving+"'")
	require.NoError(t, err)
	require.NoError(t, os.Remove(path))
	writeFile(t, filepath.Join(dir, items[0].Work.Tmp), "harmless")
	writeFile(t, path, "third")
	recoverOne(t, v)
	requireNoHidden(t, dir)
	b, err := os.ReadFile(path + ".restored-1")
	require.NoError(t, err)
	require.Equal(t, "harmless", string(b))
	b, err = os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "third", string(b))
	require.Equal(t, "bad", readItem(t, v, items[0].ID))
}

// Somebody changed the restored file before recovery ran: both stay.
func TestRecoverRestoreOfChangedFile(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	item, err := quarantine(v, path, threat.Hash{})
	require.NoError(t, err)
	v = crash(t, v, "restore: durable", func() { restore(v, item.ID, path) })
	require.NoError(t, os.WriteFile(path, []byte("edited"), 0o600))
	require.False(t, recoverOne(t, v).Done)
	require.FileExists(t, path)
	require.Equal(t, "bad", readItem(t, v, item.ID))
}

func TestReserve(t *testing.T) {
	t.Parallel()
	v, dir := newVault(t, realTempDir(t)), realTempDir(t)
	v.config.Reserve = 1 << 60
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	_, err := quarantine(v, path, threat.Hash{})
	require.ErrorIs(t, err, ErrNoSpace)
	require.FileExists(t, path)
	items, _, err := v.List(context.Background(), "", 10)
	require.NoError(t, err)
	require.Empty(t, items)
}

func BenchmarkQuarantineRestore(b *testing.B) {
	v, dir := newVault(b, realTempDir(b)), realTempDir(b)
	path := filepath.Join(dir, "x")
	writeFile(b, path, string(make([]byte, 100<<10)))
	b.ReportAllocs()
	for b.Loop() {
		item, err := quarantine(v, path, threat.Hash{})
		require.NoError(b, err)
		_, err = restore(v, item.ID, path)
		require.NoError(b, err)
	}
}
