package yara

// #include <yara.h>
import "C"

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	goyara "github.com/hillu/go-yara/v4"
)

// libyara trusts what it loads and crashes on damage. Its format is therefore
// wrapped, little endian:
//
//	magic     8 bytes
//	version  16 bytes  of libyara, padded with zeros
//	length    u64      of what follows the header
//	digest   32 bytes  SHA-256 of what follows the header
const (
	fileMagic   = "LZYARC1\n"
	versionSize = 16
	headerSize  = len(fileMagic) + versionSize + 8 + sha256.Size
	maxCompiled = 1 << 30
)

func header(payload []byte) []byte {
	b := make([]byte, headerSize)
	copy(b, fileMagic)
	copy(b[len(fileMagic):len(fileMagic)+versionSize], C.YR_VERSION)
	binary.LittleEndian.PutUint64(b[len(fileMagic)+versionSize:], uint64(len(payload)))
	digest := sha256.Sum256(payload)
	copy(b[headerSize-sha256.Size:], digest[:])
	return b
}

func writeRules(rules *goyara.Rules, w io.Writer) error {
	var payload bytes.Buffer
	if err := rules.Write(&payload); err != nil {
		return err
	}
	if _, err := w.Write(header(payload.Bytes())); err != nil {
		return err
	}
	_, err := w.Write(payload.Bytes())
	return err
}

var errDamaged = errors.New("the file is damaged")

func readRules(r io.Reader) (*goyara.Rules, error) {
	head := make([]byte, headerSize)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, fmt.Errorf("%w: no complete header", errDamaged)
	}
	if string(head[:len(fileMagic)]) != fileMagic {
		return nil, fmt.Errorf("%w: no compiled rules", errDamaged)
	}
	version := string(bytes.TrimRight(head[len(fileMagic):len(fileMagic)+versionSize], "\x00"))
	if version != C.YR_VERSION {
		return nil, fmt.Errorf("compiled by libyara %q, this is %s: compile the sources again", version, C.YR_VERSION)
	}
	length := binary.LittleEndian.Uint64(head[len(fileMagic)+versionSize:])
	if length > maxCompiled {
		return nil, fmt.Errorf("%w: it claims %d bytes", errDamaged, length)
	}
	payload, err := io.ReadAll(io.LimitReader(r, int64(length)))
	if err != nil {
		return nil, fmt.Errorf("reading: %w", err)
	}
	if !bytes.Equal(header(payload), head) {
		return nil, fmt.Errorf("%w: length or digest differ", errDamaged)
	}
	return goyara.ReadRules(bytes.NewReader(payload))
}
