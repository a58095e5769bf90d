package image

import (
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

const openNonblock = unix.O_NONBLOCK | unix.O_CLOEXEC

// ErrDigest says that a blob's content is not what its digest promises: it is
// damaged or was exchanged, and must not be called clean by that name.
var ErrDigest = errors.New("content does not match its digest")

// ErrTooLarge says that a layer is larger than the limit.
var ErrTooLarge = errors.New("layer is larger than the limit")

// Options of Open. The zero value takes every platform.
type Options struct {
	// Platform such as "linux/amd64" takes only manifests for it (and those that
	// name none); empty takes all.
	Platform string
	// MaxLayer bounds a layer in bytes; default 16 GiB.
	MaxLayer int64
	// TempDir holds layers that are copied out of an archive while they are
	// inspected (unlinked at once); default os.TempDir.
	TempDir string
}

// Image is an open image file or directory; several images in it are one.
type Image struct {
	// Names are the references the image calls itself, sorted, at most 512 bytes
	// each. They are a stranger's claim.
	Names []string

	src     source
	opts    Options
	layers  []Layer
	missing []Missing
	seen    map[string]bool
	count   int
}

// Layer is one layer, listed once per digest.
type Layer struct {
	// Digest of the layer as it is in the file, "sha256:…"; empty if the format
	// has none (old docker save archives).
	Digest    string
	MediaType string
	Size      int64 // bytes in the file

	image *Image
	name  string
}

// Missing is something the image refers to that could not be looked at: such
// an image is only partly inspected.
type Missing struct {
	What   string // digest or file name
	Reason threat.Reason
}

// Open reads the structure of an image: a directory with an OCI layout, or a
// tar archive. The error wraps ErrFormat when path is no image at all. The
// caller calls Close.
func Open(path string, opts Options) (*Image, error) {
	if opts.MaxLayer <= 0 {
		opts.MaxLayer = 16 << 30
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("opening an image: %w", err)
	}
	im := &Image{opts: opts, seen: map[string]bool{}}
	if im.src, err = openSource(path, info); err != nil {
		return nil, err
	}
	if err := im.read(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening image %s: %w", path, err), im.Close())
	}
	slices.Sort(im.Names)
	im.Names = slices.Compact(im.Names)
	return im, nil
}

func openSource(path string, info fs.FileInfo) (source, error) {
	switch {
	case info.IsDir():
		root, err := os.OpenRoot(path)
		if err != nil {
			return nil, fmt.Errorf("opening an image: %w", err)
		}
		return directory{root}, nil
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("opening image %s: neither a directory nor a regular file: %w", path, ErrFormat)
	}
	f, err := os.OpenFile(path, os.O_RDONLY|openNonblock, 0)
	if err != nil {
		return nil, fmt.Errorf("opening an image: %w", err)
	}
	a, err := readArchive(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening image %s: %w", path, err), f.Close())
	}
	return a, nil
}

// Layers returns the layers, each once per digest, in the order they were
// found: the bottom of the first image first.
func (im *Image) Layers() []Layer { return im.layers }

// Missing returns what the image refers to and could not be looked at.
func (im *Image) Missing() []Missing { return im.missing }

// Close closes the file or directory. Files that Layer.File returned stay open.
func (im *Image) Close() error { return im.src.Close() }

// read follows both formats: an archive may hold both, and loaders differ in
// which they believe, so a layer of either is a layer.
func (im *Image) read() error {
	found := false
	index, err := im.document("index.json", "")
	switch {
	case err == nil:
		found = true
		if err := im.manifests(index.Manifests, 0); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	b, err := im.small("manifest.json", "")
	switch {
	case err == nil:
		found = true
		if err := im.docker(b); err != nil {
			return err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if !found {
		return fmt.Errorf("neither index.json nor manifest.json: %w", ErrFormat)
	}
	return nil
}

// small reads a document and checks its digest if one is given.
func (im *Image) small(name, digest string) ([]byte, error) {
	s, err := im.src.open(name)
	if err != nil {
		return nil, err
	}
	defer s.close()
	if s.size > MaxDocument {
		return nil, fmt.Errorf("reading %s of %d bytes: %w", name, s.size, ErrFormat)
	}
	b, err := io.ReadAll(s.reader())
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", name, err)
	}
	if h := newHash(digest); h != nil {
		h.Write(b)
		if !matches(h, digest) {
			return nil, fmt.Errorf("reading %s: %w", name, ErrDigest)
		}
	}
	return b, nil
}

func (im *Image) document(name, digest string) (Document, error) {
	b, err := im.small(name, digest)
	if err != nil {
		return Document{}, err
	}
	return ParseDocument(b)
}

// newHash returns the hash function of a digest, nil for an empty one.
func newHash(digest string) hash.Hash {
	switch {
	case strings.HasPrefix(digest, "sha256:"):
		return sha256.New()
	case strings.HasPrefix(digest, "sha512:"):
		return sha512.New()
	}
	return nil
}

func matches(h hash.Hash, digest string) bool {
	_, want, _ := strings.Cut(digest, ":")
	return hex.EncodeToString(h.Sum(nil)) == want
}
