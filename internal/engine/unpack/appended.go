package unpack

import (
	"bytes"
	"io"
	"sort"
	"unicode/utf8"

	"github.com/lazaret/lazaret/internal/engine/filetype"
)

// Bounds on the search for containers inside other files.
const (
	// searchWindow is how far behind a script's start or a program's end a
	// container is looked for, in bytes.
	searchWindow = 1 << 20
	// maxCandidates is how many places that look like a container are tried.
	maxCandidates = 16
)

// appendedMagics are what the payloads of self-extractors begin with.
var appendedMagics = []string{
	"\x1f\x8b\x08", "\xfd7zXZ\x00", "\x28\xb5\x2f\xfd", "7z\xbc\xaf\x27\x1c", "BZh", "\x04\x22\x4d\x18",
	zipLocalSig, "070701", "070707", "!<arch>\n", "\xed\xab\xee\xdb", "Rar!\x1a\x07",
}

// appended looks for containers behind other content: a zip archive that ends
// the file, the payload of a self-extracting script, data behind the end of an
// ELF or PE program. What turns out not to be a container is ignored.
func (w *walk) appended(src *Source) error {
	size := src.size()
	if size < 22 {
		return nil
	}
	used := span{size, size}
	if w.endsInZip(src) {
		at, err := w.guess(src.from(0, filetype.Zip))
		if err != nil {
			return err
		}
		if at {
			used.start = 0 // its own gaps were searched for hidden members
		}
	}
	head := src.Data
	if src.At != nil {
		head = make([]byte, min(size, searchWindow))
		if _, err := src.At.ReadAt(head, 0); err != nil && err != io.EOF {
			return err
		}
	}
	start := int64(0)
	switch src.Type {
	case filetype.ELF:
		start = endOfELF(head, src.readerAt(), size)
	case filetype.PE:
		start = endOfPE(head, size)
	case filetype.Script, filetype.PHP, filetype.Text:
	default:
		if !startsAsText(head) {
			return nil
		}
	}
	if start >= size {
		return nil
	}
	return w.search(src, start, used.start == 0)
}

// startsAsText reports whether the first line is text: a shell runs such a file
// up to where it tells it to stop.
func startsAsText(head []byte) bool {
	line, _, ok := bytes.Cut(head[:min(len(head), 512)], []byte("\n"))
	for _, c := range line {
		ok = ok && (c >= 0x20 || c == '\t') && c < 0x7f
	}
	return ok
}

// endsInZip reports whether an end record is where it can be.
func (w *walk) endsInZip(src *Source) bool {
	n := min(src.size(), zipTail)
	tail := src.slice(src.size()-n, n)
	if tail == nil {
		tail = make([]byte, n)
		if _, err := src.At.ReadAt(tail, src.size()-n); err != nil && err != io.EOF {
			return false
		}
	}
	return bytes.Contains(tail, []byte(zipEndSig))
}

// guess walks a source that may not be what it looks like, and reports whether
// it was.
func (w *walk) guess(src *Source) (bool, error) {
	sub := &walk{u: w.u, ctx: w.ctx, b: w.b, visit: w.visit, tentative: true}
	err := sub.protect(func() error { return sub.open(src) })
	if sub.abort != nil {
		w.abort = sub.abort
		return false, errStop
	}
	if !sub.proof && w.b.stop == nil {
		return false, nil
	}
	sub.finish(err)
	w.notes.merge(&sub.notes)
	if w.b.stop != nil {
		return true, errStop
	}
	return sub.proof, nil
}

// search tries what looks like the start of a container from start on. Zip
// archives are left out if the one at the end of the file was walked.
func (w *walk) search(src *Source, start int64, noZip bool) error {
	n := min(src.size()-start, searchWindow)
	window := src.slice(start, n)
	if window == nil {
		window = make([]byte, n)
		if _, err := src.At.ReadAt(window, start); err != nil && err != io.EOF {
			return err
		}
	}
	if utf8.Valid(window) {
		return nil // text holds nothing that is compressed
	}
	for _, at := range candidates(window) {
		t := filetype.Recognise(window[at:])
		if t.Kind() == filetype.Plain || (noZip && t.IsZip()) {
			continue
		}
		if start+int64(at) == 0 {
			continue
		}
		ok, err := w.guess(src.from(start+int64(at), t))
		if err != nil {
			return err
		}
		if ok {
			// The payload usually fills the rest; what it did not take was
			// reported by its own walk.
			return nil
		}
	}
	return nil
}

// candidates returns where one of the magics occurs, in order.
func candidates(window []byte) []int {
	var found []int
	for _, m := range appendedMagics {
		for from, n := 0, 0; n < maxCandidates; n++ {
			i := bytes.Index(window[from:], []byte(m))
			if i < 0 {
				break
			}
			found = append(found, from+i)
			from += i + len(m)
		}
	}
	if len(window) >= 512 && filetype.IsTarHeader(window) {
		found = append(found, 0)
	}
	sort.Ints(found)
	return found[:min(len(found), maxCandidates)]
}
