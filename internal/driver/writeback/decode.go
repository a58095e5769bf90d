package writeback

import (
	"encoding/binary"
	"unsafe"
)

// keyLen is the size of struct inode_key of bpf/writeback.c.
const keyLen = int(unsafe.Sizeof(programInodeKey{}))

// decode reads one struct inode_key in the machine's byte order.
func decode(b []byte) (programInodeKey, bool) {
	if len(b) < keyLen {
		return programInodeKey{}, false
	}
	return programInodeKey{
		Ino: binary.NativeEndian.Uint64(b),
		Dev: binary.NativeEndian.Uint32(b[8:]),
	}, true
}
