package mounts

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// host is a fake proc file system over real files in a temporary directory.
type host struct {
	t        testing.TB
	dir      string // real files
	proc     string
	maj, min uint32
}

func newHost(t testing.TB) *host {
	h := &host{t: t, dir: t.TempDir(), proc: t.TempDir()}
	var st unix.Stat_t
	require.NoError(t, unix.Stat(h.dir, &st))
	h.maj, h.min = unix.Major(st.Dev), unix.Minor(st.Dev)
	require.Equal(t, st.Dev, Makedev(h.maj, h.min))
	h.table("self", h.line("/", "/"))
	return h
}

// line is a mount of the real file system; root is relative to "/".
func (h *host) line(root, point string) string {
	return fmt.Sprintf("1 1 %d:%d %s %s rw - ext4 /dev/x rw\n", h.maj, h.min, root, point)
}

func (h *host) overlay(point, options string) string {
	return fmt.Sprintf("2 1 0:99 / %s rw - overlay overlay rw,%s\n", point, options)
}

func (h *host) table(pid, text string) {
	h.t.Helper()
	dir := filepath.Join(h.proc, pid)
	require.NoError(h.t, os.MkdirAll(filepath.Join(dir, "ns"), 0o755))
	_ = os.Symlink("mnt:["+pid+"]", filepath.Join(dir, "ns/mnt"))
	_ = os.Symlink("/", filepath.Join(dir, "root"))
	require.NoError(h.t, os.WriteFile(filepath.Join(dir, "mountinfo"), []byte(text), 0o600))
}

func (h *host) file(name string) (full string, dev, ino uint64) {
	h.t.Helper()
	full = filepath.Join(h.dir, name)
	require.NoError(h.t, os.MkdirAll(filepath.Dir(full), 0o755))
	require.NoError(h.t, os.WriteFile(full, []byte(name), 0o600))
	var st unix.Stat_t
	require.NoError(h.t, unix.Stat(full, &st))
	return full, st.Dev, st.Ino
}

func TestLocate(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	upper, dev, upperIno := h.file("s/3/fs/data/f")
	lower, _, lowerIno := h.file("s/1/fs/data/f")
	bind, _, bindIno := h.file("vol/sub/b")
	require.NoError(t, os.Symlink("data", filepath.Join(h.dir, "s/1/fs/alias")))
	require.NoError(t, os.MkdirAll(filepath.Join(h.dir, "l"), 0o755))
	require.NoError(t, os.Symlink("../s/1/fs", filepath.Join(h.dir, "l/AAA")))
	options := "lowerdir=" + h.dir + "/s/2/fs:" + h.dir + "/l/AAA,upperdir=" + h.dir + "/s/3/fs"
	h.table("7", h.overlay("/", options)+h.line(h.dir+"/vol", "/srv"))
	h.table("8", h.line("/", "/"))
	h.table("9", h.overlay("/mnt/x", options)+h.line("/", "/"))
	c := NewCache(h.proc)

	for _, tc := range []struct {
		name     string
		pid      int
		path     string
		ino      uint64
		want     Place
		notFound bool
	}{
		{name: "upper layer", pid: 7, path: "/data/f", ino: upperIno, want: Place{
			Path: "/data/f", HostPath: upper, Layer: h.dir + "/s/3/fs", LayerName: h.dir + "/s/3/fs", Upper: true}},
		{name: "lower layer through a link", pid: 7, path: "/data/f", ino: lowerIno, want: Place{
			Path: "/data/f", HostPath: lower, Layer: h.dir + "/s/1/fs", LayerName: h.dir + "/l/AAA"}},
		{name: "bind mount", pid: 7, path: "/srv/sub/b", ino: bindIno, want: Place{Path: "/srv/sub/b", HostPath: bind}},
		{name: "host process", pid: 8, path: bind, ino: bindIno, want: Place{Path: bind, HostPath: bind}},
		{name: "overlay elsewhere", pid: 9, path: "/data/f", ino: upperIno, want: Place{
			Path: "/mnt/x/data/f", HostPath: upper, Layer: h.dir + "/s/3/fs", LayerName: h.dir + "/s/3/fs", Upper: true}},
		{name: "path through a symbolic link", pid: 7, path: "/alias/f", ino: lowerIno, notFound: true},
		{name: "another inode", pid: 7, path: "/data/f", ino: bindIno, notFound: true},
		{name: "unlinked", pid: 7, path: "/data/f (deleted)", ino: upperIno, notFound: true},
		{name: "not absolute", pid: 7, path: "memfd:x", ino: upperIno, notFound: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := c.Locate(tc.pid, tc.path, dev, tc.ino)
			if tc.notFound {
				require.ErrorIs(t, err, ErrNotFound)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
	_, err := c.Locate(4711, "/x", dev, 1)
	require.ErrorIs(t, err, os.ErrNotExist, "the process is gone")
}

func TestLocateReadsAgainOnAMiss(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	full, dev, ino := h.file("s/1/fs/f")
	h.table("7", h.line("/", "/")) // a new namespace: copies of the host's mounts
	c := NewCache(h.proc)
	_, err := c.Locate(7, "/f", dev, ino)
	require.ErrorIs(t, err, ErrNotFound)
	h.table("7", h.overlay("/", "lowerdir="+h.dir+"/s/1/fs"))
	p, err := c.Locate(7, "/f", dev, ino)
	require.NoError(t, err)
	require.Equal(t, full, p.HostPath)
	require.False(t, p.Upper)

	// A table that is long to read is not read again at once.
	c.mu.Lock()
	for _, s := range c.spaces {
		s.cost, s.read = time.Second, time.Now()
	}
	c.mu.Unlock()
	h.table("7", h.overlay("/", "lowerdir="+h.dir+"/s/2/fs"))
	other, dev, ino := h.file("s/2/fs/f")
	require.NotEmpty(t, other)
	_, err = c.Locate(7, "/f", dev, ino)
	require.ErrorIs(t, err, ErrNotFound)
}

func TestRemoteLayersAreNotTouched(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	_, dev, ino := h.file("net/f")
	h.table("self", h.line("/", "/")+"3 1 0:70 / "+h.dir+"/net rw - nfs4 server:/x rw\n")
	h.table("7", h.overlay("/", "lowerdir="+h.dir+"/net"))
	_, err := NewCache(h.proc).Locate(7, "/f", dev, ino)
	require.ErrorIs(t, err, ErrNotFound)
}

func TestBacking(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	_, dev, _ := h.file("s/1/fs/f")
	h.table("self", h.line("/", "/")+h.line("/vol", "/mnt/vol")+"3 1 7:1 / /data rw - xfs /dev/loop1 rw\n4 1 0:5 / /proc rw - proc proc rw\n")
	h.table("7", h.overlay("/", "lowerdir="+h.dir+"/s/1/fs")+"5 1 7:1 /v /srv rw - xfs /dev/loop1 rw\n6 1 0:5 / /proc rw - proc proc rw\n7 1 0:77 / /dev/shm rw - tmpfs shm rw\n")
	got, err := NewCache(h.proc).Backing([]string{"/no/such/directory"}, []int{7, 4711})
	require.NoError(t, err)
	require.Equal(t, []FileSystem{
		{Point: "/", Dev: dev, Type: "ext4", Source: "/dev/x", For: h.dir + "/s/1/fs"},
		{Point: "/data", Dev: Makedev(7, 1), Type: "xfs", Source: "/dev/loop1", For: "/srv"},
	}, got)
}

func TestLayers(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.file("s/1/fs/f")
	h.file("s/3/fs/f")
	options := "lowerdir=" + h.dir + "/s/1/fs,upperdir=" + h.dir + "/s/3/fs"
	h.table("7", h.overlay("/", options)+h.line("/", "/srv"))
	h.table("8", h.line("/", "/"))
	h.table("9", h.overlay("/", "lowerdir="+h.dir+"/gone"))
	c := NewCache(h.proc)
	got, err := c.Layers(7)
	require.NoError(t, err)
	require.Equal(t, []LayerDir{
		{Dir: h.dir + "/s/3/fs", Name: h.dir + "/s/3/fs", Upper: true},
		{Dir: h.dir + "/s/1/fs", Name: h.dir + "/s/1/fs"},
	}, got)
	got, err = c.Layers(8)
	require.NoError(t, err)
	require.Empty(t, got)
	_, err = c.Layers(9)
	require.ErrorIs(t, err, ErrNotFound)
}

func BenchmarkLocateCached(b *testing.B) {
	h := newHost(b)
	_, dev, ino := h.file("s/1/fs/f")
	h.table("7", h.overlay("/", "lowerdir="+h.dir+"/s/2/fs:"+h.dir+"/s/1/fs,upperdir="+h.dir+"/s/3/fs"))
	c := NewCache(h.proc)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Locate(7, "/f", dev, ino); err != nil {
			b.Fatal(err)
		}
	}
}
