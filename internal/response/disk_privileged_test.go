//go:build privileged

package response

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// ext4 mounts a small file system of its own.
func ext4(t *testing.T) string {
	dir := realTempDir(t)
	image, at := filepath.Join(dir, "image"), filepath.Join(dir, "mnt")
	f, err := os.Create(image)
	require.NoError(t, err)
	require.NoError(t, f.Truncate(32<<20))
	require.NoError(t, f.Close())
	require.NoError(t, os.Mkdir(at, 0o755))
	for _, c := range [][]string{{"mkfs.ext4", "-q", image}, {"mount", "-o", "loop,acl,user_xattr", image, at}} {
		out, err := exec.Command(c[0], c[1:]...).CombinedOutput()
		require.NoError(t, err, "%v: %s", c, out)
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", at).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	return at
}

func chattr(t *testing.T, flag, path string) {
	out, err := exec.Command("chattr", flag, path).CombinedOutput()
	require.NoError(t, err, "%s", out)
}

func TestImmutableFiles(t *testing.T) {
	if !isolate(t) {
		return
	}
	v, dir := newVault(t, realTempDir(t)), ext4(t)
	path := filepath.Join(dir, "d", "x")
	require.NoError(t, os.Mkdir(filepath.Join(dir, "d"), 0o755))
	writeFile(t, path, "bad")
	for _, tt := range []struct{ flag, path string }{{"i", path}, {"a", path}, {"i", filepath.Dir(path)}, {"a", filepath.Dir(path)}} {
		chattr(t, "+"+tt.flag, tt.path)
		_, err := quarantine(v, path, threat.Hash{})
		require.ErrorIs(t, err, ErrImmutable)
		require.FileExists(t, path)
		chattr(t, "-"+tt.flag, tt.path)
	}
	// The attribute is set after the first look at it.
	v.step = func(s string) {
		if s == "quarantine: removing" {
			chattr(t, "+i", path)
		}
	}
	_, err := quarantine(v, path, threat.Hash{})
	require.ErrorIs(t, err, ErrImmutable)
	require.FileExists(t, path)
	chattr(t, "-i", path)
	v.step = func(s string) {
		if s == "remove: verified" {
			chattr(t, "+a", filepath.Dir(path)) // rename worked, unlink does not
		}
	}
	_, err = quarantine(v, path, threat.Hash{})
	require.ErrorIs(t, err, ErrImmutable)
	require.ErrorContains(t, err, "until recovery ends this")
	chattr(t, "-a", filepath.Dir(path))
	v.step = func(string) {}
	recovered, err := v.Recover(context.Background())
	require.NoError(t, err)
	require.Len(t, recovered, 1)
	requireNoHidden(t, filepath.Dir(path))
	require.NoFileExists(t, path)
	require.Equal(t, "bad", readItem(t, v, recovered[0].Item.ID))
	require.Len(t, blobs(t, v), 1)
}

func TestOwnerCapabilitiesAndACLsComeBack(t *testing.T) {
	if !isolate(t) {
		return
	}
	v, dir := newVault(t, realTempDir(t)), ext4(t)
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	require.NoError(t, os.Chown(path, 1234, 4321))
	require.NoError(t, unix.Chmod(path, 0o6755))
	// vfs_cap_data revision 2, cap_net_raw+ep (include/uapi/linux/capability.h).
	capability := []byte{1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
	// posix_acl_xattr version 2: user::rwx user:1000:r-- group::r-x mask::r-x other::r-x.
	acl := []byte{2, 0, 0, 0,
		1, 0, 7, 0, 0xff, 0xff, 0xff, 0xff, 2, 0, 4, 0, 0xe8, 3, 0, 0, 4, 0, 5, 0, 0xff, 0xff, 0xff, 0xff,
		0x10, 0, 5, 0, 0xff, 0xff, 0xff, 0xff, 0x20, 0, 5, 0, 0xff, 0xff, 0xff, 0xff}
	attrs := map[string][]byte{
		"security.capability": capability, "system.posix_acl_access": acl,
		"user.note": []byte("kept"), "trusted.t": {0, 1, 0xff}, "user.\xff": []byte("odd name"),
	}
	for name, value := range attrs {
		require.NoError(t, unix.Setxattr(path, name, value, 0), name)
	}
	item, err := quarantine(v, path, threat.Hash{})
	require.NoError(t, err)
	require.Empty(t, item.LostXattrs)
	r, err := restore(v, item.ID, path)
	require.NoError(t, err)
	require.Empty(t, r.Refused)
	var st unix.Stat_t
	require.NoError(t, unix.Stat(path, &st))
	require.Equal(t, []uint32{1234, 4321, 0o6755}, []uint32{st.Uid, st.Gid, st.Mode & 0o7777})
	for name, want := range attrs {
		got := make([]byte, 1000)
		n, err := unix.Getxattr(path, name, got)
		require.NoError(t, err, name)
		require.Equal(t, want, got[:n], name)
	}
}

func TestFullDisk(t *testing.T) {
	if !isolate(t) {
		return
	}
	state, dir := filepath.Join(realTempDir(t), "state"), filepath.Join(realTempDir(t), "files")
	mountTmpfs(t, state, "size=2m")
	mountTmpfs(t, dir, "size=8m")
	v := newVault(t, state)
	path := filepath.Join(dir, "x")
	content := bytes.Repeat([]byte("0123456789abcdef"), 4<<20/16)
	require.NoError(t, os.WriteFile(path, content, 0o600))
	_, err := quarantine(v, path, threat.Hash{})
	require.ErrorIs(t, err, ErrNoSpace)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
	require.Empty(t, blobs(t, v), "what was written is given back")
	items, _, err := v.List(context.Background(), "", 10)
	require.NoError(t, err)
	require.Empty(t, items)

	// Nothing at all fits, not even a record.
	filler, err := os.Create(filepath.Join(state, "filler"))
	require.NoError(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 512))
	}
	require.NoError(t, filler.Close())
	_, err = quarantine(v, path, threat.Hash{})
	require.ErrorIs(t, err, ErrNoSpace)
	require.FileExists(t, path)
	requireNoHidden(t, dir)
	require.NoError(t, os.Remove(filler.Name()))

	// With space it works, and a full target keeps the item in the vault.
	require.NoError(t, unix.Mount("tmpfs", state, "tmpfs", unix.MS_REMOUNT, "size=16m"))
	item, err := quarantine(v, path, threat.Hash{})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 6<<20), 0o600))
	_, err = restore(v, item.ID, path)
	require.ErrorIs(t, err, ErrNoSpace)
	require.NoFileExists(t, path)
	requireNoHidden(t, dir)
	require.Equal(t, string(content), readItem(t, v, item.ID))
	require.NoError(t, os.Remove(filepath.Join(dir, "filler")))
	_, err = restore(v, item.ID, path)
	require.NoError(t, err)
	got, err = os.ReadFile(path)
	require.NoError(t, err)
	require.True(t, bytes.Equal(content, got))
}

func TestReadOnlyMountAndMountPoint(t *testing.T) {
	if !isolate(t) {
		return
	}
	v, dir := newVault(t, realTempDir(t)), filepath.Join(realTempDir(t), "files")
	mountTmpfs(t, dir, "")
	path := filepath.Join(dir, "x")
	writeFile(t, path, "bad")
	writeFile(t, path+".other", "other")
	require.NoError(t, unix.Mount(path+".other", path, "", unix.MS_BIND, ""))
	_, err := quarantine(v, path, threat.Hash{})
	require.ErrorIs(t, err, ErrBusy, "a file that is a mount point")
	require.NoError(t, unix.Unmount(path, 0))
	require.NoError(t, unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	_, err = quarantine(v, path, threat.Hash{})
	require.ErrorIs(t, err, ErrReadOnly)
	require.FileExists(t, path)
	require.Empty(t, blobs(t, v))
}
