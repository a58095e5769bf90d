package image

import (
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"strings"

	"github.com/lazaret/lazaret/internal/threat"
)

// String is the layer's digest, or its file's name if it has none.
func (l *Layer) String() string {
	if l.Digest != "" {
		return l.Digest
	}
	return l.name
}

// Hash is the layer's digest as an object's name; zero unless it is a SHA-256
// digest. An inspection of File that names another object was of other content.
func (l *Layer) Hash() threat.Hash {
	sum, ok := strings.CutPrefix(l.Digest, "sha256:")
	if !ok {
		return threat.Hash{}
	}
	h, err := threat.ParseHash(sum)
	if err != nil {
		return threat.Hash{}
	}
	return h
}

// File returns the layer as a file of its own with offset 0, after checking
// its digest (ErrDigest) and size (ErrTooLarge). A layer in an archive is
// copied into an unlinked temporary file, so that what was checked is what is
// inspected; a layer in a directory is the file itself, and the caller compares
// Hash with what the inspection found. The caller closes it.
func (l *Layer) File() (*os.File, error) {
	if l.Size > l.image.opts.MaxLayer {
		return nil, fmt.Errorf("opening layer %s of %d bytes: %w", l, l.Size, ErrTooLarge)
	}
	s, err := l.image.src.open(l.name)
	if err != nil {
		return nil, fmt.Errorf("opening layer %s: %w", l, err)
	}
	if s.size > l.image.opts.MaxLayer {
		s.close()
		return nil, fmt.Errorf("opening layer %s of %d bytes: %w", l, s.size, ErrTooLarge)
	}
	h := newHash(l.Digest)
	if s.own {
		if err := check(io.Discard, s, h, l.Digest); err != nil {
			s.close()
			return nil, fmt.Errorf("opening layer %s: %w", l, err)
		}
		return s.file, nil
	}
	f, err := os.CreateTemp(l.image.opts.TempDir, "lazaret-layer-*")
	if err != nil {
		return nil, fmt.Errorf("copying layer %s: %w", l, err)
	}
	err = os.Remove(f.Name())
	if err == nil {
		err = check(f, s, h, l.Digest)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("copying layer %s: %w", l, err), f.Close())
	}
	return f, nil
}

// check copies a section and compares the digest, if there is one.
func check(w io.Writer, s section, h hash.Hash, digest string) error {
	if h != nil {
		w = io.MultiWriter(w, h)
	}
	n, err := io.Copy(w, s.reader())
	switch {
	case err != nil:
		return err
	case n != s.size:
		return io.ErrUnexpectedEOF
	case h != nil && !matches(h, digest):
		return ErrDigest
	}
	return nil
}
