package response

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/workload/mounts"
)

// inImageLayer reports whether an open file belongs to a lower layer of an
// overlay: it is seen through an overlay mount and the upper directory does
// not hold it. Removing it would hide it in one container and leave it in the
// image. The options are those of Documentation/filesystems/overlayfs.rst.
func (p *place) inImageLayer(f *os.File) (bool, error) {
	var sx unix.Statx_t
	if err := unix.Statx(int(f.Fd()), "", unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS|unix.STATX_MNT_ID, &sx); err != nil {
		return false, fmt.Errorf("finding the mount of %s: %w", p.path, err)
	}
	if sx.Mask&unix.STATX_MNT_ID == 0 {
		return false, nil // before Linux 5.8: the caller's knowledge has to do
	}
	table := "/proc/self/mountinfo"
	if p.root != "/" {
		table = strings.TrimSuffix(p.root, "root") + "mountinfo"
	}
	text, err := os.ReadFile(table)
	if err != nil {
		return false, fmt.Errorf("reading mounts: %w", err)
	}
	all := mounts.Parse(text)
	i := slices.IndexFunc(all, func(m mounts.Mount) bool { return m.ID == sx.Mnt_id })
	if i < 0 || all[i].Type != "overlay" {
		return false, nil
	}
	m := &all[i]
	upper, ok := m.FSOption("upperdir")
	if !ok {
		return true, nil // an overlay without an upper layer is all image
	}
	inside, ok := strings.CutPrefix(p.path, strings.TrimSuffix(m.Point, "/"))
	if !ok {
		return false, nil
	}
	if _, err := os.Lstat(upper); err != nil {
		// mount(8) has special characters of the option escaped by backslashes,
		// fsconfig(2) has not.
		upper = strip(upper)
		if _, err := os.Lstat(upper); err != nil {
			return false, nil // a path of another mount namespace: not ours to judge
		}
	}
	_, err = os.Lstat(path.Join(upper, m.Root, inside))
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	return false, err
}

// strip takes each backslash away that is not itself behind one.
func strip(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
