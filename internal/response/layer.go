package response

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// inImageLayer reports whether an open file belongs to a lower layer of an
// overlay: it is seen through an overlay mount and the upper directory does
// not hold it. Removing it would hide it in one container and leave it in the
// image. The layout of mountinfo is that of proc_pid_mountinfo(5), the options
// are those of Documentation/filesystems/overlayfs.rst.
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
	m, ok, err := findMount(table, sx.Mnt_id)
	if err != nil || !ok || m.kind != "overlay" {
		return false, err
	}
	upper, ok := m.option("upperdir")
	if !ok {
		return true, nil // an overlay without an upper layer is all image
	}
	inside, ok := strings.CutPrefix(p.path, strings.TrimSuffix(m.point, "/"))
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
	_, err = os.Lstat(path.Join(upper, m.root, inside))
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	return false, err
}

type mount struct {
	root, point, kind, options string
}

func findMount(table string, id uint64) (mount, bool, error) {
	f, err := os.Open(table)
	if err != nil {
		return mount{}, false, fmt.Errorf("reading mounts: %w", err)
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	s.Buffer(nil, 1<<20) // an overlay names all its layers in one line
	want := strconv.FormatUint(id, 10)
	for s.Scan() {
		if m, got, ok := parseMount(s.Text()); ok && got == want {
			return m, true, nil
		}
	}
	if err := s.Err(); err != nil {
		return mount{}, false, fmt.Errorf("reading mounts: %w", err)
	}
	return mount{}, false, nil
}

func parseMount(line string) (m mount, id string, ok bool) {
	left, right, ok := strings.Cut(line, " - ")
	l, r := strings.Fields(left), strings.Fields(right)
	if !ok || len(l) < 6 || len(r) < 3 {
		return mount{}, "", false
	}
	return mount{root: unescape(l[3]), point: unescape(l[4]), kind: r[0], options: r[2]}, l[0], true
}

// option returns an overlay option's value. Commas in it are escaped in octal.
func (m *mount) option(name string) (string, bool) {
	for _, o := range strings.Split(m.options, ",") {
		if v, ok := strings.CutPrefix(o, name+"="); ok {
			return unescape(v), true
		}
	}
	return "", false
}

// unescape undoes the octal escapes of mountinfo.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
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
