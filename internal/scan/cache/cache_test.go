package cache

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/threat"
)

func open(t testing.TB, dir string) (*Cache, *condition.Set) {
	t.Helper()
	conditions := &condition.Set{}
	c, err := Open(context.Background(), Config{Dir: dir, Conditions: conditions, Logger: slog.New(slog.DiscardHandler)})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return c, conditions
}

func key(ino uint64) event.FileKey {
	return event.FileKey{Dev: 1<<40 + 8, Ino: ino, CTime: int64(ino) * 1000, MTime: 5, Size: 77}
}

func clean(b byte) []threat.Object {
	return []threat.Object{{Hash: threat.Hash{b, 1}, Size: 77, Type: "elf", Verdict: threat.Clean}}
}

func infected(b byte) []threat.Object {
	return []threat.Object{
		{Hash: threat.Hash{b, 2}, Size: 77, Type: "zip", Verdict: threat.Clean},
		{Hash: threat.Hash{b, 3}, Size: 5, Type: "data", Member: "m", Verdict: threat.Malicious, Detections: []threat.Detection{{Signature: "S", Severity: threat.High}}},
	}
}

func codes(s *condition.Set) (out []string) {
	for _, c := range s.List() {
		out = append(out, c.Code)
	}
	return out
}

func TestKeepsBeyondTheProcess(t *testing.T) {
	t.Parallel()
	ctx, dir := context.Background(), t.TempDir()
	high := key(1<<63 + 17) // inode numbers use all 64 bits
	c, _ := open(t, dir)
	c.Put(key(1), clean(1), 7, 0, true)
	c.Put(high, infected(2), 7, 9, true)
	c.Put(event.FileKey{}, clean(3), 7, 0, true)
	c.Bind(key(4), clean(3), 7, 0)
	c.Remember(threat.Hash{2, 3}, threat.Location{Workload: "w", Path: "/elsewhere"})
	require.NoError(t, c.Close())

	c, conditions := open(t, dir)
	_, ok := c.Known(key(1), 7, 0)
	require.False(t, ok)
	for _, k := range []event.FileKey{key(1), high, key(4)} {
		c.Load(ctx, k)
	}
	r, ok := c.Known(key(1), 7, 0)
	require.True(t, ok)
	require.Equal(t, Record{Hash: threat.Hash{1, 1}, Epoch: 7, Verdict: threat.Clean, Type: "elf", Size: 77, Count: 1}, r)
	_, ok = c.Known(key(1), 8, 0)
	require.False(t, ok, "another epoch")
	h, ok := c.Content(key(1))
	require.True(t, ok)
	require.Equal(t, threat.Hash{1, 1}, h)
	other := key(1)
	other.MTime++
	_, ok = c.Content(other)
	require.False(t, ok, "another version")
	r, ok = c.Known(high, 7, 9)
	require.True(t, ok)
	require.Equal(t, threat.Malicious, r.Verdict)
	require.Equal(t, 2, r.Count)
	_, ok = c.Known(high, 7, 8)
	require.False(t, ok, "other limits")
	_, ok = c.Known(key(4), 7, 0)
	require.True(t, ok)
	objects, ok := c.Objects(ctx, threat.Hash{2, 2}, 7, 9)
	require.True(t, ok)
	require.Equal(t, infected(2), objects)
	_, ok = c.Objects(ctx, threat.Hash{2, 3}, 0, 0)
	require.False(t, ok, "only its name is known")
	require.Empty(t, codes(conditions))
}

func TestBoundedMemory(t *testing.T) { // not parallel: it counts allocations
	tab := newTable(1000)
	for i := range uint64(20_000) {
		tab.put(key(i), Record{Hash: threat.Hash{1}, Verdict: threat.Clean, Epoch: 1})
	}
	require.LessOrEqual(t, tab.len(), 1000)
	require.Greater(t, tab.len(), 900)
	require.Zero(t, testing.AllocsPerRun(100, func() { tab.get(key(19_999)) }))
}

func TestDamagedFileIsReplaced(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	fill := func(t *testing.T, dir string) {
		c, _ := open(t, dir)
		for i := range 3000 {
			o := clean(byte(i))
			o[0].Hash[2], o[0].Hash[3] = byte(i>>8), 1
			c.Put(key(uint64(i)), o, 1, 0, true)
		}
		require.NoError(t, c.Close())
	}
	overwrite := func(t *testing.T, dir string, from int64) {
		f, err := os.OpenFile(filepath.Join(dir, "scan.db"), os.O_RDWR, 0)
		require.NoError(t, err)
		defer f.Close()
		info, err := f.Stat()
		require.NoError(t, err)
		junk := make([]byte, 4096)
		for i := range junk {
			junk[i] = 0xa5
		}
		for off := from; off < info.Size(); off += 4096 {
			_, err = f.WriteAt(junk, off)
			require.NoError(t, err)
		}
	}
	t.Run("header", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		fill(t, dir)
		overwrite(t, dir, 0)
		c, conditions := open(t, dir)
		require.Equal(t, []string{ConditionReset}, codes(conditions))
		require.FileExists(t, filepath.Join(dir, "scan.db.damaged"))
		c.Put(key(1), clean(1), 1, 0, true)
		c.Flush(ctx)
		require.Equal(t, []string{ConditionReset}, codes(conditions))
	})
	t.Run("pages, met while reading", func(t *testing.T) {
		t.Parallel()
		dir := t.TempDir()
		fill(t, dir)
		overwrite(t, dir, 16*4096)
		c, conditions := open(t, dir)
		for i := range uint64(3000) {
			c.Load(ctx, key(i))
			if r, ok := c.Known(key(i), 1, 0); ok {
				require.Equal(t, byte(i), r.Hash[0], "never a wrong answer")
			}
		}
		require.Equal(t, []string{ConditionReset}, codes(conditions))
		c.Put(key(1), clean(1), 1, 0, true)
		require.NoError(t, c.Close())
		c, _ = open(t, dir)
		c.Load(ctx, key(1))
		_, ok := c.Known(key(1), 1, 0)
		require.True(t, ok, "the new file works")
	})
	t.Run("a flipped bit in a row", func(t *testing.T) {
		t.Parallel()
		for _, change := range []string{
			"UPDATE object SET verdict = 1", "UPDATE object SET epoch = 2", "UPDATE object SET detail = NULL",
			"UPDATE object SET hash = zeroblob(32)", "UPDATE inode_version SET ctime = ctime + 1", "UPDATE object SET verdict = 99",
			"UPDATE object SET hash = 'x'", "UPDATE object SET epoch = -1", "UPDATE inode_version SET mtime = 'text'",
		} {
			dir := t.TempDir()
			c, _ := open(t, dir)
			c.Put(key(1), infected(1), 1, 0, true)
			c.Flush(ctx)
			_, err := c.disk.db.ExecContext(ctx, change)
			require.NoError(t, err)
			require.NoError(t, c.Close())
			c, conditions := open(t, dir)
			c.Load(ctx, key(1))
			_, ok := c.Known(key(1), 1, 0)
			require.False(t, ok, change)
			_, ok = c.Known(key(1), 2, 0)
			require.False(t, ok, change)
			require.Equal(t, []string{ConditionReset}, codes(conditions), change)
		}
	})
	t.Run("damaged detail", func(t *testing.T) {
		t.Parallel()
		c, conditions := open(t, t.TempDir())
		c.Put(event.FileKey{}, infected(1), 1, 0, true)
		c.Flush(ctx)
		c.recent.Purge()
		_, err := c.disk.db.ExecContext(ctx, "UPDATE object SET detail = x'28b52ffd00'")
		require.NoError(t, err)
		_, ok := c.Objects(ctx, threat.Hash{1, 2}, 1, 0)
		require.False(t, ok)
		require.Equal(t, []string{ConditionReset}, codes(conditions))
	})
}

func TestFullDiskLeavesMemory(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c, conditions := open(t, t.TempDir())
	c.disk.db.SetMaxOpenConns(1)
	// SQLite gives SQLITE_FULL at this bound as it does on a full disk.
	_, err := c.disk.db.ExecContext(ctx, "PRAGMA max_page_count = 1")
	require.NoError(t, err)
	for i := range 500 {
		o := infected(byte(i))
		o[0].Hash[5] = byte(i >> 8)
		c.Put(key(uint64(i)), o, 1, 0, true)
	}
	c.Flush(ctx)
	require.Equal(t, []string{ConditionWrite}, codes(conditions))
	r, ok := c.Known(key(3), 1, 0)
	require.True(t, ok)
	require.Equal(t, threat.Malicious, r.Verdict)
	_, ok = c.Objects(ctx, r.Hash, 1, 0)
	require.True(t, ok)
	_, err = c.disk.db.ExecContext(ctx, "PRAGMA max_page_count = 100000")
	require.NoError(t, err)
	c.Put(key(9), clean(9), 1, 0, true)
	c.Flush(ctx)
	require.Empty(t, codes(conditions), "space again")
}

func TestPrune(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	c, _ := open(t, t.TempDir())
	for i := range 40 {
		o := clean(byte(i))
		c.Put(key(uint64(i)), o, 1, 0, true)
		c.Remember(o[0].Hash, threat.Location{Workload: "w", Path: "/x"})
	}
	c.Flush(ctx)
	_, err := c.disk.db.ExecContext(ctx, "UPDATE inode_version SET seen = ino; UPDATE location SET last = 1000 + object")
	require.NoError(t, err)
	require.NoError(t, c.disk.prune(ctx, 10, 1005))
	counts := map[string]int{}
	for _, table := range []string{"inode_version", "location", "object"} {
		var n int
		require.NoError(t, c.disk.db.QueryRowContext(ctx, "SELECT count(*) FROM "+table).Scan(&n))
		counts[table] = n
	}
	require.Equal(t, map[string]int{"inode_version": 10, "location": 10, "object": 10}, counts)
}

func TestRunWritesBehind(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c, _ := open(t, dir)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	c.Put(key(1), clean(1), 1, 0, true)
	reader, _ := open(t, dir)
	require.Eventually(t, func() bool {
		_, _, ok, err := reader.disk.object(context.Background(), threat.Hash{1, 1})
		return err == nil && ok
	}, 5*time.Second, 20*time.Millisecond)
	cancel()
	require.NoError(t, <-done)
}

func FuzzUnpack(f *testing.F) {
	c, err := newCodec()
	require.NoError(f, err)
	good, err := c.pack(infected(1))
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte{0x28, 0xb5, 0x2f, 0xfd, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		objects, err := c.unpack(b)
		if err == nil && len(objects) == 0 {
			t.Fatal("nothing without an error")
		}
	})
}
