package main

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParseStat(t *testing.T) {
	t.Parallel()
	p, ok := parseStat([]byte("42 (a (b) c) S 7 42 42 0 -1 4194560 1 2 3 4 100 20 3 1 20 0 1 0 5\n"))
	require.True(t, ok)
	require.Equal(t, process{pid: 42, parent: 7, busy: 1240 * time.Millisecond}, p)
	for _, bad := range []string{"", "42", "42 (x", "42 (x) S", "x (x) S 7 0 0 0 0 0 0 0 0 0 1 2 3 4", "1 (x) S 7 0 0 0 0 0 0 0 0 0 1 2 3 x"} {
		_, ok := parseStat([]byte(bad))
		require.False(t, ok, bad)
	}
}

func TestTree(t *testing.T) {
	t.Parallel()
	c := exec.CommandContext(t.Context(), "sh", "-c", "sleep 60 & wait")
	require.NoError(t, c.Start())
	t.Cleanup(func() { c.Wait() })
	require.Eventually(t, func() bool {
		list, err := tree(c.Process.Pid)
		return err == nil && len(list) == 2
	}, 5*time.Second, 10*time.Millisecond)
	require.NoError(t, idle(t.Context(), c.Process.Pid))
	list, err := tree(c.Process.Pid)
	require.NoError(t, err)
	for _, p := range list {
		m, err := use(p.pid)
		require.NoError(t, err)
		require.NotZero(t, m.rss)
		require.GreaterOrEqual(t, m.rss, m.pss)
		if p.pid != c.Process.Pid {
			require.Equal(t, "sleep 60", p.command)
			defer syscallKill(p.pid)
		}
	}
	_, err = tree(1 << 30)
	require.Error(t, err)
}

// syscallKill ends a process that this test started.
func syscallKill(pid int) {
	if p, err := os.FindProcess(pid); err == nil {
		_ = p.Kill()
	}
}

func TestOpened(t *testing.T) {
	t.Parallel()
	paths, err := plant(t.TempDir(), 3)
	require.NoError(t, err)
	ns, err := opened(paths, 10)
	require.NoError(t, err)
	require.Positive(t, ns)
	missing := append([]byte(filepath.Join(t.TempDir(), "missing")), 0)
	_, err = opened([]*byte{&missing[0]}, 1)
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestHashes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	c := &corpus{}
	for i := range 30 {
		path := filepath.Join(dir, fmt.Sprint(i))
		require.NoError(t, os.WriteFile(path, []byte(path), 0o644))
		c.list = append(c.list, path)
	}
	list := filepath.Join(dir, "list.hsb")
	c.dir = dir
	require.NoError(t, c.plant(8))
	require.NoError(t, c.hashes(list, 100))
	b, err := os.ReadFile(list)
	require.NoError(t, err)
	require.Equal(t, 100, strings.Count(string(b), "\n"))
	for path := range c.set() {
		b2, err := os.ReadFile(path)
		require.NoError(t, err)
		require.Contains(t, string(b), fmt.Sprintf("%x:%d:", sha256.Sum256(b2), len(b2)))
	}
	shares, err := c.split(&lab{work: dir}, 3)
	require.NoError(t, err)
	n := 0
	for _, share := range shares {
		b, err := os.ReadFile(share)
		require.NoError(t, err)
		n += strings.Count(string(b), "\n")
	}
	require.Equal(t, 38, n)
}

func TestStrung(t *testing.T) {
	t.Parallel()
	require.Equal(t, "a\"b\x01\nw\x00\n\x00\x0a\xf0\n", string(strung(`rule x {
  strings:
    $a = "a\"b\x01" ascii
    $b = "w" wide
    $c = { 0A F? }
    $d = /regex/
  condition: all of them
}`)))
	require.Empty(t, strung("rule x { condition: true }"))
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	require.ErrorContains(t, start(context.Background(), options{only: "scan,nothing"}), `no part "nothing"`)
}

func TestTail(t *testing.T) {
	t.Parallel()
	var x tail
	for range 1000 {
		n, err := x.Write([]byte("0123456789\n"))
		require.NoError(t, err)
		require.Equal(t, 11, n)
	}
	x.Write([]byte("end"))
	require.Less(t, len(x.b), 9<<10)
	require.True(t, strings.HasSuffix(string(x.b), "\nend"))
}
