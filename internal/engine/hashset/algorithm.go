package hashset

import "github.com/lazaret/lazaret/internal/threat"

// Algorithm names the digest a set holds.
type Algorithm string

// The algorithms.
const (
	SHA256 Algorithm = "sha256"
	SHA1   Algorithm = "sha1"
	MD5    Algorithm = "md5"
)

// Algorithms lists all algorithms, the strongest first.
var Algorithms = []Algorithm{SHA256, SHA1, MD5}

// Size returns the digest's length in bytes, 0 for an unknown algorithm.
func (a Algorithm) Size() int {
	switch a {
	case SHA256:
		return 32
	case SHA1:
		return 20
	case MD5:
		return 16
	}
	return 0
}

// File returns the name of the algorithm's file in a compiled bundle, such as
// "sha256.set".
func (a Algorithm) File() string { return string(a) + ".set" }

// BySize returns the algorithm whose digests have the given length in bytes.
func BySize(n int) (Algorithm, bool) {
	for _, a := range Algorithms {
		if a.Size() == n {
			return a, true
		}
	}
	return "", false
}

// AnySize as an entry's size matches objects of every size.
const AnySize int64 = -1

// MaxName is the length in bytes of the longest signature name.
const MaxName = 512

// Entry is one digest that is known to be bad.
type Entry struct {
	// Key is the digest. Build copies it.
	Key []byte
	// Size of the object in bytes, or AnySize.
	Size int64
	// Name of the signature, at most MaxName bytes.
	Name string
	// Severity of a match.
	Severity threat.Severity
}
