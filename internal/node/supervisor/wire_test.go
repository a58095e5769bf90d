package supervisor

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

func TestMessages(t *testing.T) {
	t.Parallel()
	for _, m := range []message{{kind: kindHeartbeat}, {kind: kindReady}, {kindGap, 1, 2, 3}, Mode{true, time.Second}.message()} {
		got, err := decode(m.encode())
		require.NoError(t, err)
		require.Equal(t, m, got)
	}
	for _, b := range [][]byte{nil, make([]byte, messageLen), make([]byte, messageLen+1), append([]byte{9}, make([]byte, messageLen-1)...)} {
		_, err := decode(b)
		require.Error(t, err)
	}
}

func TestModeIsBounded(t *testing.T) {
	t.Parallel()
	require.Equal(t, Mode{true, 3 * time.Second}, Mode{true, 3 * time.Second}.message().mode())
	require.Equal(t, maxHold, message{kind: kindMode, b: 1 << 63}.mode().Hold)
	require.Equal(t, Mode{}, Mode{Hold: -time.Second}.message().mode())
}

func FuzzDecode(f *testing.F) {
	f.Add(message{kindGap, 1, 2, 3}.encode())
	f.Add([]byte{1})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err != nil {
			return
		}
		hold := m.mode().Hold
		require.True(t, hold >= 0 && hold <= maxHold)
	})
}

func TestSocket(t *testing.T) {
	t.Parallel()
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	_, err = receive(pair[0], 10*time.Millisecond)
	require.ErrorIs(t, err, unix.ETIMEDOUT)
	require.NoError(t, send(pair[1], message{kind: kindReady}))
	m, err := receive(pair[0], time.Second)
	require.NoError(t, err)
	require.Equal(t, kindReady, m.kind)
	for err = nil; err == nil; { // a full socket must not block
		err = send(pair[1], message{kind: kindHeartbeat})
	}
	require.ErrorIs(t, err, unix.EAGAIN)
	require.NoError(t, unix.Close(pair[1]))
	for err = nil; err == nil; {
		_, err = receive(pair[0], time.Second)
	}
	require.ErrorIs(t, err, errGone)
	require.ErrorIs(t, send(pair[0], m), unix.EPIPE)
	require.NoError(t, unix.Close(pair[0]))
}
