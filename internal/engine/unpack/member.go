package unpack

import (
	"bytes"
	"io"

	"github.com/lazaret/lazaret/internal/engine/filetype"
)

// Member is a file inside a container.
type Member struct {
	// Name is the member's path, made safe for display by Name.
	Name string
	// Size in bytes as the container declares it, -1 if it does not. It is a
	// hint: hostile containers lie.
	Size int64
	// Data is the whole content if the container is in memory and the member is
	// stored uncompressed; it belongs to the container. Otherwise it is nil and
	// Reader has the content.
	Data []byte
	// Reader streams the content and is valid until the visitor returns. It
	// fails with a *Failure when a limit is reached or the data is damaged.
	Reader io.Reader
}

// Source is a container's content. One of Data, At or Stream is set.
type Source struct {
	Type filetype.Type
	// Data is the whole content in memory.
	Data []byte
	// At reads content that is too large for memory; Size is its length in bytes.
	At   io.ReaderAt
	Size int64
	// Stream reads content that can only be read once, from start to end; only
	// types of kind filetype.Stream can be walked so.
	Stream io.Reader
}

// size returns the length of random access content.
func (s *Source) size() int64 {
	if s.At == nil {
		return int64(len(s.Data))
	}
	return s.Size
}

// readerAt returns random access to the content.
func (s *Source) readerAt() io.ReaderAt {
	if s.At == nil {
		return bytes.NewReader(s.Data)
	}
	return s.At
}

// slice returns n bytes of in-memory content at off, or nil.
func (s *Source) slice(off, n int64) []byte {
	if s.Data == nil || off < 0 || n < 0 || off > int64(len(s.Data)) || n > int64(len(s.Data))-off {
		return nil
	}
	return s.Data[off : off+n : off+n]
}

// from returns the content from off to its end as a source of another type.
func (s *Source) from(off int64, t filetype.Type) *Source {
	if s.At == nil {
		return &Source{Type: t, Data: s.Data[off:]}
	}
	return &Source{Type: t, At: io.NewSectionReader(s.At, off, s.Size-off), Size: s.Size - off}
}
