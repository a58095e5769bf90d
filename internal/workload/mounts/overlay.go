package mounts

import (
	"path"
	"strings"
)

// Overlay is an overlay mount with the directories it is made of
// (Documentation/filesystems/overlayfs.rst), as whoever mounted it named them.
type Overlay struct {
	Point string
	// Root is the directory of the overlay that is mounted, "/" unless bound.
	Root string
	// Upper is the writable layer, empty for a read-only overlay.
	Upper string
	// Lower are the read-only layers, topmost first.
	Lower []string
}

const maxLower = 500 // the kernel's OVL_MAX_STACK

// Overlay returns the layers of an overlay mount; false for other types.
func (m *Mount) Overlay() (Overlay, bool) {
	if m.Type != "overlay" {
		return Overlay{}, false
	}
	o := Overlay{Point: m.Point, Root: m.Root}
	// Commas inside values are escaped as \054, so this split is exact; the
	// octal escapes go first, overlay's own \: next.
	for option := range strings.SplitSeq(m.FSOptions, ",") {
		name, value, _ := strings.Cut(option, "=")
		switch name {
		case "upperdir":
			o.Upper = path.Clean("/" + colons(unescape(value))[0])
		case "lowerdir":
			for _, l := range colons(unescape(value)) {
				o.add(l)
			}
		case "lowerdir+":
			// One directory each, colons not special (fsconfig(2) interface).
			o.add(unescape(value))
		}
	}
	// Runtimes shorten long lists by changing directory first; the layers are
	// then relative to the directory that holds the upper layer's own one.
	base := path.Dir(path.Dir(o.Upper))
	for i, l := range o.Lower {
		if !path.IsAbs(l) {
			l = path.Join("/", base, l)
		}
		o.Lower[i] = path.Clean(l)
	}
	return o, o.Upper != "" || len(o.Lower) > 0
}

func (o *Overlay) add(dir string) {
	if dir != "" && len(o.Lower) < maxLower {
		o.Lower = append(o.Lower, dir)
	}
}

// colons splits a list of directories at colons that are not escaped as "\:".
// Empty parts (the "::" before data-only layers) are kept; the result has at
// least one element.
func colons(s string) []string {
	var out []string
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s):
			i++
			b.WriteByte(s[i])
		case s[i] == ':':
			out = append(out, b.String())
			b.Reset()
		default:
			b.WriteByte(s[i])
		}
	}
	return append(out, b.String())
}
