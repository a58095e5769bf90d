//go:build privileged

package containerdtest

import (
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRuntime(t *testing.T) {
	for _, fs := range []string{"ext4", "xfs"} {
		t.Run(fs, func(t *testing.T) {
			dir, err := os.MkdirTemp("", "lzc")
			require.NoError(t, err)
			t.Cleanup(func() { _ = os.RemoveAll(dir) })
			ctx := t.Context()
			rt, err := Start(ctx, Config{Dir: dir, FileSystem: fs})
			require.NoError(t, err)
			t.Cleanup(func() { _ = rt.Close() })
			image, err := rt.Image(ctx, "localhost/lazaret/test:1",
				Layer{{Path: "data/lower", Data: []byte("from a layer")}})
			require.NoError(t, err)
			require.Len(t, image.Layers, 2)

			bind := t.TempDir()
			c, err := rt.RunSpec(ctx, Spec{ID: "one", Image: image.Name, Binds: map[string]string{bind: "/srv"}})
			require.NoError(t, err)
			cgroup, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(c.PID), "cgroup"))
			require.NoError(t, err)
			require.Contains(t, string(cgroup), "/"+rt.Namespace+"/one")

			res, err := c.Sh(ctx, "cat /data/lower; echo up >/data/upper; echo b >/srv/b; exit 7")
			require.NoError(t, err)
			require.Equal(t, "from a layer", res.Stdout)
			require.Equal(t, 7, res.Code)
			require.FileExists(t, filepath.Join(bind, "b"))
			found, err := filepath.Glob(rt.Root() + "/io.containerd.snapshotter.v1.overlayfs/snapshots/*/fs/data/upper")
			require.NoError(t, err)
			require.Len(t, found, 1, "the layers are visible in the caller's mount namespace")
			require.NoError(t, c.Stop(ctx))

			_, err = rt.Run(ctx, "two", image.Name) // left running: Close must end it
			require.NoError(t, err)
			require.NoError(t, rt.Close())
			mounts, err := os.ReadFile("/proc/self/mountinfo")
			require.NoError(t, err)
			require.NotContains(t, string(mounts), dir)
			for _, p := range processes(t) {
				require.NotContains(t, p, dir, "a process is left")
			}
			left, err := filepath.Glob("/sys/fs/cgroup/*/" + rt.Namespace)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

// processes returns the command lines of all processes.
func processes(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	var out []string
	for _, f := range files {
		if b, err := os.ReadFile(f); err == nil {
			out = append(out, string(b))
		}
	}
	return out
}
