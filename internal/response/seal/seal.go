// Package seal encrypts a stream so that no part of it can be changed, moved,
// repeated or cut off unnoticed.
//
// It is the STREAM construction of Hoang, Reyhanitabar, Rogaway and Vizár,
// "Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance"
// (CRYPTO 2015), with AES-256-GCM over chunks of 64 KiB: the nonce of a chunk
// is a random prefix, the chunk's number and a flag for the last one.
//
//	header   magic (8) | nonce (12) | wrapped data key and nonce prefix (39+16)
//	chunk    ciphertext (65536, the last one 0 to 65536) | tag (16)
//
// The data key is random for each stream and is wrapped with AES-256-GCM by
// the caller's key; the name the caller gives the stream is authenticated with
// it, so that one stream cannot stand in for another.
package seal

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// KeySize is the length of the wrapping key in bytes.
const KeySize = 32

const (
	magic      = "LZRTSEA1"
	chunkSize  = 64 << 10
	tagSize    = 16
	nonceSize  = 12
	prefixSize = 7
	wrapped    = KeySize + prefixSize
	headerSize = len(magic) + nonceSize + wrapped + tagSize
)

// ErrDamaged says that a stream is not what was written under that key and
// name: changed, cut off, extended or exchanged.
var ErrDamaged = errors.New("sealed stream is damaged")

// Size returns the length of the sealed form of n bytes.
func Size(n int64) int64 {
	chunks := max(1, (n+chunkSize-1)/chunkSize)
	return int64(headerSize) + n + chunks*tagSize
}

type stream struct {
	aead   cipher.AEAD
	nonce  [nonceSize]byte
	number uint32
}

// next returns the nonce of the next chunk.
func (s *stream) next(last bool) ([]byte, error) {
	if s.number == math.MaxUint32 {
		return nil, errors.New("sealed stream is longer than 256 TiB")
	}
	binary.BigEndian.PutUint32(s.nonce[prefixSize:], s.number)
	s.nonce[nonceSize-1] = 0
	if last {
		s.nonce[nonceSize-1] = 1
	}
	s.number++
	return s.nonce[:], nil
}

func gcm(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Writer seals what is written to it.
type Writer struct {
	w      io.Writer
	stream stream
	buf    []byte // plaintext of the chunk that is being filled
	out    []byte
	closed bool
}

// NewWriter writes the header to w. The caller calls Close, which writes the
// last chunk, and closes w.
func NewWriter(w io.Writer, key *[KeySize]byte, name []byte) (*Writer, error) {
	var secret [wrapped]byte
	rand.Read(secret[:]) // never fails, see crypto/rand
	wrap, err := gcm(key[:])
	if err != nil {
		return nil, err
	}
	header := make([]byte, len(magic)+nonceSize, headerSize)
	copy(header, magic)
	nonce := header[len(magic):]
	rand.Read(nonce)
	header = wrap.Seal(header, nonce, secret[:], additional(name))
	data, err := gcm(secret[:KeySize])
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(header); err != nil {
		return nil, err
	}
	s := &Writer{w: w, buf: make([]byte, 0, chunkSize), out: make([]byte, 0, chunkSize+tagSize)}
	s.stream.aead = data
	copy(s.stream.nonce[:], secret[KeySize:])
	return s, nil
}

func additional(name []byte) []byte { return append([]byte(magic), name...) }

// Write implements io.Writer. A full chunk is kept until it is known whether it
// is the last.
func (s *Writer) Write(p []byte) (int, error) {
	if s.closed {
		return 0, errors.New("writing to a closed seal")
	}
	total := len(p)
	for len(p) > 0 {
		if len(s.buf) == chunkSize {
			if err := s.flush(false); err != nil {
				return total - len(p), err
			}
		}
		n := copy(s.buf[len(s.buf):chunkSize], p)
		s.buf, p = s.buf[:len(s.buf)+n], p[n:]
	}
	return total, nil
}

// Close writes the last chunk. Without it the stream cannot be read.
func (s *Writer) Close() error {
	if s.closed {
		return nil
	}
	s.closed = true
	return s.flush(true)
}

func (s *Writer) flush(last bool) error {
	nonce, err := s.stream.next(last)
	if err != nil {
		return err
	}
	s.out = s.stream.aead.Seal(s.out[:0], nonce, s.buf, nil)
	s.buf = s.buf[:0]
	_, err = s.w.Write(s.out)
	return err
}

// Reader opens a sealed stream. Each byte it returns is authentic; io.EOF
// means that the stream is complete.
type Reader struct {
	r      *bufio.Reader
	stream stream
	in     []byte
	plain  []byte // what has not been read of the current chunk
	err    error
}

// NewReader reads the header from r. The caller closes r.
func NewReader(r io.Reader, key *[KeySize]byte, name []byte) (*Reader, error) {
	header := make([]byte, headerSize)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, cutOff(err)
	}
	if string(header[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: no such header", ErrDamaged)
	}
	wrap, err := gcm(key[:])
	if err != nil {
		return nil, err
	}
	rest := header[len(magic):]
	secret, err := wrap.Open(nil, rest[:nonceSize], rest[nonceSize:], additional(name))
	if err != nil {
		return nil, fmt.Errorf("%w: the key or the name is another", ErrDamaged)
	}
	data, err := gcm(secret[:KeySize])
	if err != nil {
		return nil, err
	}
	s := &Reader{r: bufio.NewReaderSize(r, chunkSize+tagSize), in: make([]byte, chunkSize+tagSize)}
	s.stream.aead = data
	copy(s.stream.nonce[:], secret[KeySize:])
	return s, nil
}

func cutOff(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: it is cut off", ErrDamaged)
	}
	return err
}

// Read implements io.Reader.
func (s *Reader) Read(p []byte) (int, error) {
	for len(s.plain) == 0 {
		if s.err != nil {
			return 0, s.err
		}
		s.plain, s.err = s.chunk()
		if s.err != nil && !errors.Is(s.err, io.EOF) {
			s.plain = nil
		}
	}
	n := copy(p, s.plain)
	s.plain = s.plain[n:]
	return n, nil
}

// chunk returns the next chunk, with io.EOF if it is the last.
func (s *Reader) chunk() ([]byte, error) {
	n, err := io.ReadFull(s.r, s.in)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, cutOff(err)
	}
	last := err != nil
	if !last {
		_, err := s.r.Peek(1)
		if err != nil && !errors.Is(err, io.EOF) {
			return nil, err
		}
		last = err != nil
	}
	first := s.stream.number == 0
	nonce, err := s.stream.next(last)
	if err != nil {
		return nil, err
	}
	plain, err := s.stream.aead.Open(s.in[:0], nonce, s.in[:n], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: chunk %d", ErrDamaged, s.stream.number-1)
	}
	switch {
	case !last:
		return plain, nil
	case len(plain) == 0 && !first:
		return nil, fmt.Errorf("%w: an empty chunk at the end", ErrDamaged)
	}
	return plain, io.EOF
}
