package inspect

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"hash"
	"io"

	"github.com/lazaret/lazaret/internal/threat"
)

const (
	// keepBuffer is the largest buffer kept for the next file, in bytes.
	keepBuffer = 4 << 20
	// keepBuffers is how many of them are kept.
	keepBuffers = 4
	// hashChunk is how much of a large file is read at once to be hashed, in bytes.
	hashChunk = 1 << 20
	// firstRead is the first size of a buffer for content of unknown length.
	firstRead = 32 << 10
)

// errMore says that there is more content than was asked for.
var errMore = errors.New("more content follows")

// buffer returns a buffer of n bytes; give it back with keep.
func (p *Pipeline) buffer(n int) []byte {
	for i := len(p.buffers) - 1; i >= 0; i-- {
		if b := p.buffers[i]; cap(b) >= n {
			p.buffers = append(p.buffers[:i], p.buffers[i+1:]...)
			return b[:n]
		}
	}
	// Sizes are rounded up so that a buffer fits the next file more often.
	const step = 64 << 10
	return make([]byte, n, (n+step-1)/step*step)
}

// keep takes a buffer back. The smallest of the kept ones makes room.
func (p *Pipeline) keep(b []byte) {
	if cap(b) == 0 || cap(b) > keepBuffer {
		return
	}
	if len(p.buffers) < keepBuffers {
		p.buffers = append(p.buffers, b[:0])
		return
	}
	least := 0
	for i := range p.buffers {
		if cap(p.buffers[i]) < cap(p.buffers[least]) {
			least = i
		}
	}
	if cap(p.buffers[least]) < cap(b) {
		p.buffers[least] = b[:0]
	}
}

// read reads content up to limit bytes. size is the length it declares, -1 if
// unknown: the buffer grows to it in steps, because it may be a lie, and not
// beyond it by doubling. It returns errMore if the content is longer than
// limit; what was read before an error is returned with it.
func (p *Pipeline) read(r io.Reader, size, limit int64) ([]byte, error) {
	want := int64(firstRead)
	if size >= 0 {
		want = min(size+1, 1<<20) // one more to see the end without growing
	}
	buf := p.buffer(int(min(want, limit+1)))
	buf = buf[:0]
	for {
		if len(buf) == cap(buf) {
			next := int64(cap(buf)) + int64(cap(buf))/2 + firstRead
			if size >= int64(len(buf)) {
				next = min(next, size+1)
			}
			next = min(max(next, int64(len(buf))+512), limit+1)
			grown := make([]byte, len(buf), next)
			copy(grown, buf)
			p.keep(buf)
			buf = grown
		}
		n, err := r.Read(buf[len(buf):min(int64(cap(buf)), limit+1)])
		buf = buf[:len(buf)+n]
		switch {
		case err == io.EOF:
			if int64(len(buf)) > limit {
				return buf, errMore
			}
			return buf, nil
		case err != nil:
			return buf, err
		case int64(len(buf)) > limit:
			return buf, errMore
		}
	}
}

// sums are the hashes of a content.
type sums struct {
	sha256 threat.Hash
	sha1   *[20]byte
	md5    *[16]byte
}

// sum hashes content in memory.
func (p *Pipeline) sum(data []byte) *sums {
	s := &sums{sha256: sha256.Sum256(data)}
	if p.cfg.NeedSHA1 {
		h := sha1.Sum(data)
		s.sha1 = &h
	}
	if p.cfg.NeedMD5 {
		h := md5.Sum(data)
		s.md5 = &h
	}
	return s
}

// hasher hashes content in pieces.
type hasher struct {
	sha256, sha1, md5 hash.Hash
}

func (p *Pipeline) hasher() *hasher {
	h := &hasher{sha256: sha256.New()}
	if p.cfg.NeedSHA1 {
		h.sha1 = sha1.New()
	}
	if p.cfg.NeedMD5 {
		h.md5 = md5.New()
	}
	return h
}

func (h *hasher) write(b []byte) {
	_, _ = h.sha256.Write(b)
	if h.sha1 != nil {
		_, _ = h.sha1.Write(b)
	}
	if h.md5 != nil {
		_, _ = h.md5.Write(b)
	}
}

func (h *hasher) sums() *sums {
	s := &sums{sha256: threat.Hash(h.sha256.Sum(nil))}
	if h.sha1 != nil {
		v := [20]byte(h.sha1.Sum(nil))
		s.sha1 = &v
	}
	if h.md5 != nil {
		v := [16]byte(h.md5.Sum(nil))
		s.md5 = &v
	}
	return s
}
