package ruleset

import "bytes"

// Class is what an object's first bytes say about it. Every object belongs to
// exactly one class, and each class has its own set of compiled rules.
type Class uint8

// The classes.
const (
	Other Class = iota // neither of the following
	ELF                // begins with 7F 45 4C 46
	PE                 // begins with 4D 5A (any DOS executable)
	numClasses
)

// Classes lists all classes.
var Classes = [numClasses]Class{Other, ELF, PE}

var magics = [numClasses][]byte{ELF: []byte("\x7fELF"), PE: []byte("MZ")}

// String returns the class's name as used in file names.
func (c Class) String() string { return [...]string{"other", "elf", "pe"}[c] }

// ClassOf returns the class of content that begins with data.
func ClassOf(data []byte) Class {
	for _, c := range Classes {
		if m := magics[c]; m != nil && bytes.HasPrefix(data, m) {
			return c
		}
	}
	return Other
}

// begins reports whether content of the class can have the given bytes at an
// offset, and whether it must. mask is nil or says which bits are fixed.
func (c Class) begins(offset int64, want, mask []byte) (can, must bool) {
	if offset < 0 || offset > 16 {
		return true, false
	}
	fixed := func(i int64) bool { return mask == nil || mask[i] == 0xff }
	can, must = true, true
	if known := magics[c]; known != nil {
		for i, b := range want {
			at := offset + int64(i)
			if at >= int64(len(known)) {
				must = false
				continue
			}
			m := byte(0xff)
			if mask != nil {
				m = mask[i]
			}
			if known[at]&m != b&m {
				return false, false
			}
		}
		return can, must
	}
	// Other: content must not begin with a magic; it cannot match a pattern
	// that contains one whole.
	for _, magic := range magics {
		if magic == nil || offset != 0 || len(want) < len(magic) {
			continue
		}
		whole := true
		for i, b := range magic {
			whole = whole && want[i] == b && fixed(int64(i))
		}
		if whole {
			return false, false
		}
	}
	return true, false
}
