package writeback

import (
	"encoding/binary"
	"errors"
	"os"
	"testing"
	"unsafe"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/stretchr/testify/require"
)

// TestLayout compares the Go types with the C types in the object's BTF.
func TestLayout(t *testing.T) {
	t.Parallel()
	spec, err := loadProgram()
	require.NoError(t, err)
	var key, loss *btf.Struct
	require.NoError(t, spec.Types.TypeByName("inode_key", &key))
	require.NoError(t, spec.Types.TypeByName("loss", &loss))
	offsets := func(s *btf.Struct) map[string]uint32 {
		m := map[string]uint32{}
		for _, f := range s.Members {
			m[f.Name] = f.Offset.Bytes()
		}
		return m
	}
	var k programInodeKey
	require.EqualValues(t, unsafe.Sizeof(k), key.Size)
	require.Equal(t, map[string]uint32{
		"ino": uint32(unsafe.Offsetof(k.Ino)), "dev": uint32(unsafe.Offsetof(k.Dev)), "pad": uint32(unsafe.Offsetof(k.Pad)),
	}, offsets(key))
	require.EqualValues(t, unsafe.Sizeof(programLoss{}), loss.Size)
	require.EqualValues(t, keyLen, spec.Maps["watched"].KeySize)
	require.Equal(t, ebpf.Hash, spec.Maps["watched"].Type, "a map that evicts would lose watches silently")
	require.Contains(t, spec.Programs, "writeback_dirty_folio")
	require.Equal(t, "Dual BSD/GPL", spec.Programs["writeback_dirty_folio"].License)
}

func TestDecode(t *testing.T) {
	t.Parallel()
	b := make([]byte, keyLen)
	binary.NativeEndian.PutUint64(b, 42)
	binary.NativeEndian.PutUint32(b[8:], 8<<20|1)
	key, ok := decode(b)
	require.True(t, ok)
	require.Equal(t, programInodeKey{Ino: 42, Dev: 8<<20 | 1}, key)
	for n := range keyLen {
		_, ok := decode(b[:n])
		require.False(t, ok)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(make([]byte, keyLen))
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, ok := decode(b)
		require.Equal(t, len(b) >= keyLen, ok)
	})
}

func TestReason(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		err, memlock error
		want         string
	}{
		"lockdown": {os.ErrPermission, nil, "refuses to load tracing programs"},
		"memlock":  {os.ErrPermission, errors.New("no right"), "memory lock limit"},
		"old":      {btf.ErrNotFound, nil, "lacks BTF"},
		"other":    {errors.New("x"), nil, "x"},
		"verifier": {&ebpf.VerifierError{Cause: os.ErrPermission, Log: []string{"bad access"}}, nil, "bad access"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := error(&UnsupportedError{reason(tc.err, tc.memlock)})
			require.ErrorContains(t, err, tc.want)
			var typed *UnsupportedError
			require.ErrorAs(t, err, &typed)
		})
	}
}

func TestNewRequiresCallbacks(t *testing.T) {
	t.Parallel()
	_, err := New(Config{})
	require.ErrorContains(t, err, "required")
}
