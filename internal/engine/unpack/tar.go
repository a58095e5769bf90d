package unpack

import (
	"archive/tar"
	"errors"
	"io"
	"strings"

	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/threat"
)

// maxSparse is how much larger than its stored bytes a sparse tar member may be
// before it is inspected only in part, in bytes.
const maxSparse = 64 << 20

// tar unpacks regular files of a tar archive (POSIX.1 pax, ustar, GNU and
// pre-POSIX formats). Links, devices and directories have no content. Archives
// that follow the end mark directly (tar -A and cat make them) are unpacked too.
func (w *walk) tar(c *cursor) error {
	for {
		if err := w.tarArchive(c); err != nil {
			return err
		}
		if !c.skipZeros() || !filetype.IsTarHeader(c.peek(512)) {
			return nil
		}
	}
}

func (w *walk) tarArchive(c *cursor) error {
	t := tar.NewReader(plainReader{c})
	for {
		if err := w.b.check(w.ctx); err != nil {
			return err
		}
		h, err := t.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		switch h.Typeflag {
		case tar.TypeReg, tar.TypeCont, tar.TypeGNUSparse:
		case tar.TypeLink, tar.TypeSymlink, tar.TypeChar, tar.TypeBlock, tar.TypeDir, tar.TypeFifo, tar.TypeXGlobalHeader:
			w.proof = true
			continue
		default:
			if h.Size == 0 {
				continue
			}
		}
		if err := w.tarMember(c, t, h); err != nil && !errors.Is(err, errMember) {
			return err
		}
	}
}

func (w *walk) tarMember(c *cursor, t *tar.Reader, h *tar.Header) error {
	if !isSparse(h) {
		if data := c.content(h.Size); data != nil {
			return w.member(h.Name, h.Size, data, nil, nil)
		}
		return w.member(h.Name, h.Size, nil, t, nil)
	}
	return w.member(h.Name, h.Size, nil, &sparseReader{r: t, b: w.b, left: maxSparse}, nil)
}

// isSparse reports whether a member's content is not stored as it is.
func isSparse(h *tar.Header) bool {
	if h.Typeflag == tar.TypeGNUSparse {
		return true
	}
	for k := range h.PAXRecords {
		if strings.HasPrefix(k, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// sparseReader ends an overlong sparse member. Holes are no compression.
type sparseReader struct {
	r    io.Reader
	b    *Budget
	left int64
}

func (s *sparseReader) Read(p []byte) (int, error) {
	if s.left == 0 {
		var one [1]byte
		if n, err := s.r.Read(one[:]); n == 0 && err != nil {
			return 0, err
		}
		return 0, Fail(threat.ReasonSparseOverlong, "sparse file is larger than %d bytes", maxSparse)
	}
	n, err := s.r.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	s.b.credit(int64(n))
	return n, err
}

// plainReader hides everything but Read, so that archive/tar takes the bytes in
// order and the cursor's position is that of the member's content.
type plainReader struct{ r io.Reader }

func (p plainReader) Read(b []byte) (int, error) { return p.r.Read(b) }
