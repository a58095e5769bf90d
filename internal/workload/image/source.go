package image

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"
)

// source finds the named parts of an image.
type source interface {
	// open returns the part; fs.ErrNotExist if there is none.
	open(name string) (section, error)
	Close() error
}

// section is a part: a range of a file. The file belongs to the section only
// if own is set.
type section struct {
	file   *os.File
	offset int64
	size   int64
	own    bool
}

func (s section) reader() io.Reader { return io.NewSectionReader(s.file, s.offset, s.size) }

func (s section) close() {
	if s.own {
		_ = s.file.Close()
	}
}

// directory is an image layout on disk. os.Root keeps symbolic links in a
// stranger's layout from leading out of it.
type directory struct{ root *os.Root }

func (d directory) open(name string) (section, error) {
	// A stranger's layout may hold a FIFO or device: ask before opening, and
	// never wait in the open itself.
	info, err := d.root.Stat(name)
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("not a regular file")
	}
	if err != nil {
		return section{}, fmt.Errorf("opening %s: %w", name, err)
	}
	f, err := d.root.OpenFile(name, os.O_RDONLY|openNonblock, 0)
	if err != nil {
		return section{}, fmt.Errorf("opening %s: %w", name, err)
	}
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		return section{}, errors.Join(fmt.Errorf("opening %s: not a regular file", name), err, f.Close())
	}
	return section{file: f, size: info.Size(), own: true}, nil
}

func (d directory) Close() error { return d.root.Close() }

// archive is a tar archive; only its headers are read.
type archive struct {
	file  *os.File
	parts map[string]section
	links map[string]string
}

// readArchive notes where each regular file's bytes are. Sparse entries, whose
// bytes are not in one piece, are left out.
func readArchive(f *os.File) (*archive, error) {
	a := &archive{file: f, parts: map[string]section{}, links: map[string]string{}}
	info, err := f.Stat()
	if err != nil {
		return nil, fmt.Errorf("reading an image archive: %w", err)
	}
	// The reader seeks over content, so the file's offset is always where the
	// next bytes come from.
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, fmt.Errorf("reading an image archive: %w", err)
	}
	r := tar.NewReader(f)
	for n := 0; ; n++ {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return a, nil
		}
		if err != nil {
			return nil, fmt.Errorf("reading an image archive: %w: %w", ErrFormat, err)
		}
		if n >= maxEntries {
			return nil, fmt.Errorf("reading an image archive with more than %d entries: %w", maxEntries, ErrFormat)
		}
		name := clean(h.Name)
		switch {
		case h.Typeflag == tar.TypeReg && !sparse(h):
			offset, err := f.Seek(0, io.SeekCurrent)
			if err != nil {
				return nil, fmt.Errorf("reading an image archive: %w", err)
			}
			if h.Size < 0 || h.Size > info.Size()-offset {
				return nil, fmt.Errorf("reading an image archive: entry %q ends behind the file: %w", name, ErrFormat)
			}
			a.parts[name] = section{file: f, offset: offset, size: h.Size}
		case h.Typeflag == tar.TypeSymlink:
			a.links[name] = clean(path.Join(path.Dir(name), h.Linkname))
		case h.Typeflag == tar.TypeLink:
			a.links[name] = clean(h.Linkname)
		}
	}
}

// sparse recognises GNU and PAX sparse files.
func sparse(h *tar.Header) bool {
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return h.Typeflag == tar.TypeGNUSparse
}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (a *archive) open(name string) (section, error) {
	name = clean(name)
	// Old versions of docker save link a layer that two images share.
	for range 4 {
		if s, ok := a.parts[name]; ok {
			return s, nil
		}
		target, ok := a.links[name]
		if !ok {
			break
		}
		name = target
	}
	return section{}, fmt.Errorf("opening %s in the archive: %w", name, fs.ErrNotExist)
}

func (a *archive) Close() error { return a.file.Close() }
