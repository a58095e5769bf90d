package signature

import (
	"io"
	"iter"

	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/signature/hashlist"
)

// canonicalList converts a list of any format while it is read, and counts
// what is in it.
type canonicalList struct {
	count int64
	sizes map[int]bool // lengths of digests
	next  func() (hashset.Entry, error, bool)
	stop  func() // must be called in the end
	line  []byte
	rest  []byte // of line, not read yet
}

func newCanonicalList(r hashlist.Reader, in io.Reader) *canonicalList {
	l := &canonicalList{sizes: map[int]bool{}}
	l.next, l.stop = iter.Pull2(r.Entries(in))
	return l
}

// Read implements io.Reader over the canonical lines.
func (l *canonicalList) Read(p []byte) (int, error) {
	if len(l.rest) == 0 {
		e, err, ok := l.next()
		if err != nil {
			return 0, err
		}
		if !ok {
			return 0, io.EOF
		}
		l.count++
		l.sizes[len(e.Key)] = true
		l.line = hashlist.AppendCanonical(l.line[:0], e)
		l.rest = l.line
	}
	n := copy(p, l.rest)
	l.rest = l.rest[n:]
	return n, nil
}
