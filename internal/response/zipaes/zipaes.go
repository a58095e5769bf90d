// Package zipaes writes zip archives whose members are encrypted with
// WinZip's AES-256 (AE-2), so that common tools open them with a password.
//
// The format is that of "AES Encryption Information: Encryption Specification
// AE-1 and AE-2" by WinZip (https://www.winzip.com/en/support/aes-encryption/):
// compression method 99, extra field 0x9901, and as data
//
//	salt (16) | password verifier (2) | AES-CTR ciphertext | HMAC-SHA1 (10)
//
// with keys from PBKDF2-HMAC-SHA1 over 1000 rounds. The counter is little
// endian and starts at one. AE-2 leaves the checksum field zero: it would tell
// about the content. Members are stored, not compressed.
package zipaes

import (
	"archive/zip"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha1" // the format's choice
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"
)

const (
	method       = 99
	extraID      = 0x9901
	strength256  = 3
	saltSize     = 16
	verifierSize = 2
	macSize      = 10
	rounds       = 1000
	keySize      = 32
	overhead     = saltSize + verifierSize + macSize

	flagEncrypted = 0x1
	flagUTF8      = 0x800
	versionNeeded = 51 // APPNOTE 4.4.3.2: AES encryption
)

// Writer writes an archive.
type Writer struct {
	zip      *zip.Writer
	password string
}

// NewWriter returns a writer whose members are encrypted with password, which
// must not be empty. The caller calls Close and closes w.
func NewWriter(w io.Writer, password string) (*Writer, error) {
	if password == "" {
		return nil, errors.New("encrypting archive: the password is empty")
	}
	return &Writer{zip: zip.NewWriter(w), password: password}, nil
}

// Add writes a member of exactly size bytes, read from r. The name must be
// UTF-8.
func (w *Writer) Add(name string, modified time.Time, size int64, r io.Reader) error {
	if size < 0 {
		return fmt.Errorf("adding %q to archive: negative size", name)
	}
	var salt [saltSize]byte
	rand.Read(salt[:])
	k, err := derive(w.password, salt[:])
	if err != nil {
		return fmt.Errorf("adding %q to archive: %w", name, err)
	}
	h := &zip.FileHeader{
		Name: name, Method: method, Flags: flagEncrypted | flagUTF8,
		ReaderVersion: versionNeeded, CreatorVersion: versionNeeded,
		CompressedSize64: uint64(size) + overhead, UncompressedSize64: uint64(size),
		Extra: extra(),
	}
	h.Modified = modified
	// CreateRaw takes the MS-DOS time fields as they are.
	h.ModifiedDate, h.ModifiedTime = dosTime(modified)
	out, err := w.zip.CreateRaw(h)
	if err != nil {
		return fmt.Errorf("adding %q to archive: %w", name, err)
	}
	if err := k.write(out, salt[:], size, r); err != nil {
		return fmt.Errorf("adding %q to archive: %w", name, err)
	}
	return nil
}

// Close writes the archive's directory.
func (w *Writer) Close() error { return w.zip.Close() }

// extra is the AES extra field: vendor version 2 (AE-2), vendor "AE", key
// strength, and the real compression method, 0 for stored.
func extra() []byte {
	b := make([]byte, 11)
	binary.LittleEndian.PutUint16(b, extraID)
	binary.LittleEndian.PutUint16(b[2:], 7)
	binary.LittleEndian.PutUint16(b[4:], 2)
	copy(b[6:], "AE")
	b[8] = strength256
	return b
}

// dosTime packs a time as MS-DOS does, APPNOTE 4.4.6: years from 1980 to 2107,
// two-second steps.
func dosTime(t time.Time) (date, clock uint16) {
	t = t.UTC()
	if t.Year() < 1980 || t.Year() > 2107 {
		return 1<<5 | 1, 0
	}
	date = uint16(t.Day() + int(t.Month())<<5 + (t.Year()-1980)<<9)
	clock = uint16(t.Second()/2 + t.Minute()<<5 + t.Hour()<<11)
	return date, clock
}

type keys struct {
	block    cipher.Block
	mac      hash.Hash
	verifier [verifierSize]byte
}

func derive(password string, salt []byte) (*keys, error) {
	b, err := pbkdf2.Key(sha1.New, password, salt, rounds, 2*keySize+verifierSize)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(b[:keySize])
	if err != nil {
		return nil, err
	}
	return &keys{
		block: block, mac: hmac.New(sha1.New, b[keySize:2*keySize]),
		verifier: [verifierSize]byte(b[2*keySize:]),
	}, nil
}

func (k *keys) write(out io.Writer, salt []byte, size int64, r io.Reader) error {
	if _, err := out.Write(append(salt[:saltSize:saltSize], k.verifier[:]...)); err != nil {
		return err
	}
	sealed := io.MultiWriter(out, k.mac)
	c := counter{block: k.block, n: 1}
	buf := make([]byte, 64<<10)
	for left := size; left > 0; {
		chunk := buf[:min(left, int64(len(buf)))]
		if _, err := io.ReadFull(r, chunk); err != nil {
			return err
		}
		c.xor(chunk)
		if _, err := sealed.Write(chunk); err != nil {
			return err
		}
		left -= int64(len(chunk))
	}
	switch n, err := io.ReadFull(r, buf[:1]); {
	case n > 0:
		return fmt.Errorf("content is longer than %d bytes", size)
	case !errors.Is(err, io.EOF):
		return err
	}
	_, err := out.Write(k.mac.Sum(nil)[:macSize])
	return err
}

// counter is CTR mode with the little-endian counter of this format. All calls
// of xor but the last must be for whole blocks.
type counter struct {
	block cipher.Block
	n     uint64
}

func (c *counter) xor(p []byte) {
	var in, pad [aes.BlockSize]byte
	for len(p) > 0 {
		binary.LittleEndian.PutUint64(in[:], c.n)
		c.n++
		c.block.Encrypt(pad[:], in[:])
		n := min(len(p), len(pad))
		for i := range n {
			p[i] ^= pad[i]
		}
		p = p[n:]
	}
}
