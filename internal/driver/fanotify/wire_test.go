package fanotify

import (
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// wire builds one event with information records.
func wire(mask uint64, fd, pid int32, infos ...[]byte) []byte {
	b := make([]byte, headerLen)
	ne := binary.NativeEndian
	b[4] = metadataVersion
	ne.PutUint16(b[6:], headerLen)
	ne.PutUint64(b[8:], mask)
	ne.PutUint32(b[16:], uint32(fd))
	ne.PutUint32(b[20:], uint32(pid))
	for _, i := range infos {
		b = append(b, i...)
	}
	ne.PutUint32(b, uint32(len(b)))
	return b
}

func info(kind uint8, payload ...byte) []byte {
	b := []byte{kind, 0, 0, 0}
	binary.NativeEndian.PutUint16(b[2:], uint16(4+len(payload)))
	return append(b, payload...)
}

func pidfd(fd int32) []byte {
	var p [4]byte
	binary.NativeEndian.PutUint32(p[:], uint32(fd))
	return info(unix.FAN_EVENT_INFO_TYPE_PIDFD, p[:]...)
}

func TestParse(t *testing.T) {
	t.Parallel()
	two := append(wire(unix.FAN_OPEN_PERM, 7, 100, pidfd(8)), wire(unix.FAN_CLOSE_WRITE, 9, 101)...)
	short := wire(unix.FAN_OPEN_PERM, 7, 100)
	short[0] = 200
	old := wire(unix.FAN_OPEN_PERM, 7, 100)
	old[4] = 2
	meta := wire(unix.FAN_OPEN_PERM, 7, 100)
	meta[6] = 8
	broken := wire(unix.FAN_OPEN_PERM, 7, 100, []byte{4, 0, 99, 0}, []byte{1, 2})
	zero := wire(unix.FAN_OPEN_PERM, 7, 100, make([]byte, 8))
	for name, tc := range map[string]struct {
		in   []byte
		want []Event
		err  string
	}{
		"none":             {nil, nil, ""},
		"two":              {two, []Event{{unix.FAN_OPEN_PERM, 7, 100, 8}, {unix.FAN_CLOSE_WRITE, 9, 101, -1}}, ""},
		"no descriptor":    {wire(unix.FAN_OPEN_PERM, -24, 100), []Event{{unix.FAN_OPEN_PERM, -24, 100, -1}}, ""},
		"overflow":         {wire(unix.FAN_Q_OVERFLOW, -1, 0), []Event{{unix.FAN_Q_OVERFLOW, -1, 0, -1}}, ""},
		"no process":       {wire(unix.FAN_OPEN_PERM, 7, 1, pidfd(-2)), []Event{{unix.FAN_OPEN_PERM, 7, 1, -2}}, ""},
		"unknown info":     {wire(unix.FAN_OPEN_PERM, 7, 1, info(99, 1, 2, 3, 4), pidfd(5)), []Event{{unix.FAN_OPEN_PERM, 7, 1, 5}}, ""},
		"broken info":      {broken, []Event{{unix.FAN_OPEN_PERM, 7, 100, -1}}, ""},
		"empty info":       {zero, []Event{{unix.FAN_OPEN_PERM, 7, 100, -1}}, ""},
		"half a header":    {two[:10], nil, "10 bytes left"},
		"too long":         {short, nil, "length 200"},
		"other version":    {old, nil, "version 2"},
		"header too small": {meta, nil, "header 8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var got []Event
			for b := tc.in; len(b) > 0; {
				e, rest, err := Parse(b)
				if tc.err != "" {
					require.ErrorContains(t, err, tc.err)
					return
				}
				require.NoError(t, err)
				got, b = append(got, e), rest
			}
			require.Empty(t, tc.err)
			require.Equal(t, tc.want, got)
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(wire(unix.FAN_OPEN_PERM, 7, 100, pidfd(8)))
	f.Add(append(wire(unix.FAN_OPEN_EXEC_PERM, 1, 1, info(99, 1)), wire(unix.FAN_Q_OVERFLOW, -1, 0)...))
	f.Add(make([]byte, headerLen))
	f.Fuzz(func(t *testing.T, b []byte) {
		for len(b) > 0 {
			_, rest, err := Parse(b)
			if err != nil {
				return
			}
			require.Less(t, len(rest), len(b), "the parser must advance")
			b = rest
		}
	})
}

func TestResponse(t *testing.T) {
	t.Parallel()
	var b [responseLen]byte
	putResponse(&b, 7, true)
	require.Equal(t, uint32(7), binary.NativeEndian.Uint32(b[:]))
	require.Equal(t, uint32(unix.FAN_ALLOW), binary.NativeEndian.Uint32(b[4:]))
	putResponse(&b, 7, false)
	require.Equal(t, uint32(unix.FAN_DENY), binary.NativeEndian.Uint32(b[4:]))
}

func BenchmarkParse(b *testing.B) {
	buf := make([]byte, 0, batch*eventLen)
	for range batch {
		buf = append(buf, wire(unix.FAN_OPEN_PERM, 7, 100, pidfd(8))...)
	}
	b.ReportAllocs()
	b.SetBytes(int64(len(buf)))
	for b.Loop() {
		for rest := buf; len(rest) > 0; {
			var err error
			if _, rest, err = Parse(rest); err != nil {
				b.Fatal(err)
			}
		}
	}
}
