package response

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// containerChild is the first process of a container made by hand: an overlay
// as its root in a mount namespace of its own, with a volume on /volume and a
// read-only one on /readonly. It lives until its standard input ends.
func containerChild() int {
	dir := os.Getenv("LAZARET_CONTAINER_DIR")
	merged := filepath.Join(dir, "merged")
	steps := []func() error{
		func() error { return unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "") },
		func() error {
			return unix.Mount("overlay", merged, "overlay", 0, os.Getenv("LAZARET_CONTAINER_OPTIONS"))
		},
		func() error {
			return unix.Mount(filepath.Join(dir, "volume"), filepath.Join(merged, "volume"), "", unix.MS_BIND, "")
		},
		func() error {
			return unix.Mount(filepath.Join(dir, "volume"), filepath.Join(merged, "readonly"), "", unix.MS_BIND, "")
		},
		func() error {
			return unix.Mount("", filepath.Join(merged, "readonly"), "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
		},
		func() error { return unix.Chroot(merged) },
	}
	for i, step := range steps {
		if err := step(); err != nil {
			fmt.Println("step", i, err)
			return 9
		}
	}
	fmt.Println("ready")
	io.Copy(io.Discard, os.Stdin)
	return 0
}
