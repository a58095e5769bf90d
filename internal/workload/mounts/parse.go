// Package mounts reads mount tables (/proc/PID/mountinfo, proc(5)), finds the
// overlay layers in them, remembers tables per mount namespace and tells which
// file systems of the host hold the files of containers.
package mounts

import (
	"bytes"
	"strconv"
	"strings"
)

// Mount is one line of a mount table.
type Mount struct {
	// ID is the mount's number in its table, as statx(2) shows it.
	ID uint64
	// Dev is the device number of the file system as st_dev shows it, except on
	// btrfs, where subvolumes have numbers of their own.
	Dev uint64
	// Root is the directory of the file system that is mounted.
	Root string
	// Point is where it is mounted, relative to the process's root.
	Point string
	// Options are the mount's own options, FSOptions the file system's, both as
	// the kernel prints them: values still escaped.
	Options, FSOptions string
	Type, Source       string
}

// MaxMounts bounds the lines taken from one table; it is the kernel's own
// default limit (fs.mount-max).
const MaxMounts = 100_000

// Parse reads the text of a mountinfo file. Lines it does not understand are
// left out; at most MaxMounts lines are read.
func Parse(text []byte) []Mount {
	var out []Mount
	for n := 0; len(text) > 0 && n < MaxMounts; n++ {
		var line []byte
		line, text, _ = bytes.Cut(text, []byte{'\n'})
		if m, ok := parseLine(string(line)); ok {
			out = append(out, m)
		}
	}
	return out
}

// parseLine reads "id parent major:minor root point options [tags…] - type
// source fsoptions".
func parseLine(line string) (Mount, bool) {
	head, tail, ok := strings.Cut(line, " - ")
	if !ok {
		return Mount{}, false
	}
	h := strings.SplitN(head, " ", 7)
	t := strings.SplitN(tail, " ", 3)
	if len(h) < 6 || len(t) < 2 {
		return Mount{}, false
	}
	id, err := strconv.ParseUint(h[0], 10, 64)
	dev, ok := parseDev(h[2])
	if !ok || err != nil {
		return Mount{}, false
	}
	m := Mount{ID: id, Dev: dev, Root: unescape(h[3]), Point: unescape(h[4]), Options: h[5], Type: t[0], Source: unescape(t[1])}
	if len(t) == 3 {
		m.FSOptions = t[2]
	}
	if !strings.HasPrefix(m.Point, "/") {
		return Mount{}, false
	}
	return m, true
}

func parseDev(s string) (uint64, bool) {
	a, b, ok := strings.Cut(s, ":")
	major, err1 := strconv.ParseUint(a, 10, 32)
	minor, err2 := strconv.ParseUint(b, 10, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, false
	}
	return Makedev(uint32(major), uint32(minor)), true
}

// Makedev joins a device number the way the C library and stat(2) do.
func Makedev(major, minor uint32) uint64 {
	return uint64(major&0xfff)<<8 | uint64(major&^0xfff)<<32 | uint64(minor&0xff) | uint64(minor&^0xff)<<12
}

// ReadOnly reports whether the mount or its file system is read-only.
func (m *Mount) ReadOnly() bool {
	return hasOption(m.Options, "ro") || hasOption(m.FSOptions, "ro")
}

// FSOption returns the value of an option of the file system. Commas in it are
// escaped in octal, so the split is exact.
func (m *Mount) FSOption(name string) (value string, ok bool) {
	for o := range strings.SplitSeq(m.FSOptions, ",") {
		if o == name {
			return "", true
		}
		if v, found := strings.CutPrefix(o, name+"="); found {
			return unescape(v), true
		}
	}
	return "", false
}

func hasOption(options, name string) bool {
	for o := range strings.SplitSeq(options, ",") {
		if o == name {
			return true
		}
	}
	return false
}

// unescape turns the kernel's \ooo octal escapes (space, tab, newline,
// backslash, comma, …) back into bytes.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) && octal(s[i+1]) && octal(s[i+2]) && octal(s[i+3]) && s[i+1] < '4' {
			b.WriteByte((s[i+1]-'0')<<6 | (s[i+2]-'0')<<3 | (s[i+3] - '0'))
			i += 3
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func octal(c byte) bool { return c >= '0' && c <= '7' }
