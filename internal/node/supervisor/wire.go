package supervisor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// kind of a control message.
type kind uint8

// The messages. The child sends all but gap.
const (
	kindHeartbeat kind = iota + 1
	kindReady          // the child is about to read the group
	kindMode           // a: 1 fail closed; b: milliseconds to hold accesses
	kindGap            // the supervisor no longer reads; a, b, c: Gap's counters
)

// messageLen is the size of a control message: kind, 7 zero bytes, a, b, c.
const messageLen = 32

type message struct {
	kind    kind
	a, b, c uint64
}

func (m message) encode() []byte {
	out := make([]byte, messageLen)
	out[0] = byte(m.kind)
	binary.NativeEndian.PutUint64(out[8:], m.a)
	binary.NativeEndian.PutUint64(out[16:], m.b)
	binary.NativeEndian.PutUint64(out[24:], m.c)
	return out
}

func decode(b []byte) (message, error) {
	if len(b) != messageLen {
		return message{}, fmt.Errorf("parsing control message: %d bytes, want %d", len(b), messageLen)
	}
	m := message{kind(b[0]), binary.NativeEndian.Uint64(b[8:]), binary.NativeEndian.Uint64(b[16:]), binary.NativeEndian.Uint64(b[24:])}
	if m.kind < kindHeartbeat || m.kind > kindGap {
		return message{}, fmt.Errorf("parsing control message: unknown kind %d", m.kind)
	}
	return m, nil
}

// Mode says what happens to accesses while no service decides.
type Mode struct {
	// Closed denies them instead of allowing them.
	Closed bool
	// Hold makes them wait for a new service this long first.
	Hold time.Duration
}

// maxHold bounds Mode.Hold: longer, and a broken service hangs the machine.
const maxHold = time.Minute

func (m Mode) message() message {
	out := message{kind: kindMode, b: uint64(max(m.Hold, 0).Milliseconds())}
	if m.Closed {
		out.a = 1
	}
	return out
}

func (m message) mode() Mode {
	return Mode{Closed: m.a == 1, Hold: time.Duration(min(m.b, uint64(maxHold.Milliseconds()))) * time.Millisecond}
}

// send writes one message to the socket, which keeps message boundaries. It
// never blocks: the other end may hang.
func send(fd int, m message) error {
	for {
		err := unix.Sendto(fd, m.encode(), unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT, nil)
		if err != unix.EINTR {
			return err
		}
	}
}

// errGone says that the other end closed the control socket.
var errGone = errors.New("control socket closed")

// receive reads one message; it waits at most timeout and then returns
// unix.ETIMEDOUT.
func receive(fd int, timeout time.Duration) (message, error) {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, int(timeout.Milliseconds()))
	if err == unix.EINTR || n == 0 && err == nil {
		return message{}, unix.ETIMEDOUT
	}
	if err != nil {
		return message{}, fmt.Errorf("waiting for a control message: %w", err)
	}
	var b [messageLen + 1]byte
	n, _, err = unix.Recvfrom(fd, b[:], unix.MSG_DONTWAIT)
	switch {
	case err == unix.EAGAIN || err == unix.EINTR:
		return message{}, unix.ETIMEDOUT
	case err == unix.ECONNRESET || err == nil && n == 0:
		return message{}, errGone
	case err != nil:
		return message{}, fmt.Errorf("reading a control message: %w", err)
	}
	return decode(b[:n])
}
