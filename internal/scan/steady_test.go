package scan

import (
	"context"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// mapped maps a file for writing and reads its page, so that a store to it
// needs no fault where the file system does not ask for one.
func mapped(t *testing.T, path string) []byte {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 4096, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	require.NoError(t, err)
	require.NotZero(t, m[0])
	return m
}

// TestMappedWriter: a file that is mapped for writing is inspected each time,
// also by a scan: its content changes under the same key once a page is dirty.
func TestMappedWriter(t *testing.T) {
	t.Parallel()
	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	file := open(t, "harmless, so far, for now")
	m := mapped(t, file.Name())
	m[0] = 'H' // dirty from here on
	time.Sleep(2 * tick)
	key, err := KeyOf(file)
	require.NoError(t, err)
	inspect := func(want threat.Verdict) {
		r, err := s.Inspect(context.Background(), Request{File: file})
		require.NoError(t, err)
		require.Equal(t, want, r.Verdict)
	}
	inspect(threat.Clean)
	_, known := s.Lookup(key)
	require.False(t, known, "the next store would go unnoticed")
	copy(m, bad)
	inspect(threat.Malicious)
	require.NoError(t, unix.Munmap(m))
	time.Sleep(2 * tick)
	inspect(threat.Malicious)
	inspect(threat.Malicious)
	key, err = KeyOf(file)
	require.NoError(t, err)
	_, known = s.Lookup(key)
	require.True(t, known, "nobody can write any more")
}

// TestMemoryFile: in memory a store to a mapped page leaves the times alone.
func TestMemoryFile(t *testing.T) {
	t.Parallel()
	const memory = "/dev/shm"
	var fs unix.Statfs_t
	require.NoError(t, unix.Statfs(memory, &fs))
	require.EqualValues(t, unix.TMPFS_MAGIC, fs.Type, "the test needs a tmpfs at %s", memory)
	file, err := os.CreateTemp(memory, "lazaret-test-")
	require.NoError(t, err)
	t.Cleanup(func() { os.Remove(file.Name()) })
	_, err = file.WriteString("harmless, so far, for now")
	require.NoError(t, err)
	require.NoError(t, file.Close())
	time.Sleep(2 * tick)

	f := newFake()
	s, _ := newService(t, t.TempDir(), f)
	inspect := func(want threat.Verdict) {
		ro, err := os.Open(file.Name())
		require.NoError(t, err)
		defer ro.Close()
		r, err := s.Inspect(context.Background(), Request{File: ro})
		require.NoError(t, err)
		require.Equal(t, want, r.Verdict)
		key, err := KeyOf(ro)
		require.NoError(t, err)
		_, known := s.Lookup(key)
		require.False(t, known)
	}
	inspect(threat.Clean)
	m := mapped(t, file.Name())
	copy(m, bad)
	require.NoError(t, unix.Munmap(m))
	inspect(threat.Malicious)
}

// TestJoinNoWriter: an inspection of a file that is open for writing gives its
// result to nobody else: what it read first may have changed since.
func TestJoinNoWriter(t *testing.T) {
	t.Parallel()
	f := newFake()
	entered, proceed := make(chan struct{}, 2), make(chan struct{})
	f.before = func(context.Context, []byte) error {
		entered <- struct{}{}
		<-proceed
		return nil
	}
	s, _ := newService(t, t.TempDir(), f)
	file := open(t, "harmless, so far, for now")
	m := mapped(t, file.Name())
	m[0] = 'H'
	time.Sleep(2 * tick)
	done := make(chan error, 2)
	inspect := func() {
		_, err := s.Inspect(context.Background(), Request{File: file})
		done <- err
	}
	go inspect()
	<-entered
	copy(m, bad)
	require.NoError(t, unix.Munmap(m))
	go inspect()
	<-entered // an inspection of its own, with the content of now
	close(proceed)
	require.NoError(t, <-done)
	require.NoError(t, <-done)
}
