package response

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// Bounds of the extended attributes that are kept: the kernel's own for a list
// and a value, xattr(7), and a total.
const (
	maxXattrList  = 64 << 10
	maxXattrValue = 64 << 10
	maxXattrTotal = 1 << 20
)

// Xattr is one extended attribute, such as security.capability or a POSIX ACL.
type Xattr struct {
	Name  []byte `json:"name"` // need not be UTF-8
	Value []byte `json:"value"`
}

// readXattrs reads the extended attributes of an open file. What is beyond the
// bounds is named in lost. Overlayfs' own attributes describe a layer, not the
// file, and are left out.
func readXattrs(f *os.File) (attrs []Xattr, lost []string, err error) {
	fd := int(f.Fd())
	list := make([]byte, maxXattrList)
	n, err := unix.Flistxattr(fd, list)
	if errors.Is(err, unix.ENOTSUP) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("listing extended attributes: %w", err)
	}
	total := 0
	value := make([]byte, maxXattrValue)
	for _, raw := range bytes.Split(bytes.Clone(list[:n]), []byte{0}) {
		name := string(raw)
		if name == "" || strings.HasPrefix(name, "trusted.overlay.") || strings.HasPrefix(name, "user.overlay.") {
			continue
		}
		n, err := unix.Fgetxattr(fd, name, value)
		switch {
		case errors.Is(err, unix.ENODATA):
			continue // removed since the list was made
		case err != nil || total+n > maxXattrTotal:
			lost = append(lost, threat.Printable(name))
			continue
		}
		total += n
		attrs = append(attrs, Xattr{Name: raw, Value: bytes.Clone(value[:n])})
	}
	return attrs, lost, nil
}

// writeXattrs sets the attributes and returns the names of those that the file
// system or the kernel does not accept.
func writeXattrs(f *os.File, attrs []Xattr) (refused []string) {
	for _, a := range attrs {
		if err := unix.Fsetxattr(int(f.Fd()), string(a.Name), a.Value, 0); err != nil {
			refused = append(refused, threat.Printable(string(a.Name)))
		}
	}
	return refused
}
