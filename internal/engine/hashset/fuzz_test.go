package hashset

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// FuzzOpen opens and asks files with correct checksums but hostile content:
// any error will do, a panic or a hang will not.
func FuzzOpen(f *testing.F) {
	for _, n := range []int{0, 1, 130} {
		for _, a := range []Algorithm{SHA256, MD5} {
			var buf bytes.Buffer
			_, err := Build(&buf, a, f.TempDir(), numbered(a, n, func(i int) int64 { return int64(i) - 1 }))
			require.NoError(f, err)
			f.Add(buf.Bytes(), number(a, 0))
		}
	}
	f.Fuzz(func(t *testing.T, content, key []byte) {
		if len(content) > 1<<20 {
			return
		}
		path := filepath.Join(t.TempDir(), "set")
		require.NoError(t, os.WriteFile(path, sign(bytes.Clone(content)), 0o600))
		file, err := os.Open(path)
		require.NoError(t, err)
		s, err := Open(file)
		if err != nil {
			require.NoError(t, file.Close())
			return
		}
		_, _, _, _ = s.Lookup(key, 0)
		_, _, _, _ = s.Lookup(number(s.Algorithm(), 0), 0)
		s.MayHaveSize(7)
		require.NoError(t, s.Close())
	})
}

// sign repairs the checksums so that the fuzzer gets past them.
func sign(b []byte) []byte {
	le := binary.LittleEndian
	if len(b) < trailerSize {
		return b
	}
	tail := b[len(b)-trailerSize:]
	le.PutUint32(tail[trailerSize-4:], crc32.Checksum(tail[:trailerSize-4], castagnoli))
	l, err := parseTrailer(tail, int64(len(b)))
	if err != nil {
		return b
	}
	le.PutUint32(tail[72:], crc32.Checksum(b[l.indexAt():l.indexAt()+l.indexLen()], castagnoli))
	le.PutUint32(tail[trailerSize-4:], crc32.Checksum(tail[:trailerSize-4], castagnoli))
	for i := range l.blocks() {
		block := b[i*blockSize:][:blockSize]
		le.PutUint32(block[blockData:], checksum(uint32(i), block[:blockData]))
	}
	return b
}
