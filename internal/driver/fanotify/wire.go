package fanotify

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Sizes and numbers of include/uapi/linux/fanotify.h. The kernel writes its
// own byte order.
const (
	metadataVersion = 3
	headerLen       = unix.FAN_EVENT_METADATA_LEN
	infoHeaderLen   = 4
	pidfdInfoLen    = 8
	responseLen     = 8
	// eventLen is what one event of our group needs: the header and a pidfd.
	eventLen = headerLen + pidfdInfoLen
)

const permMask = unix.FAN_OPEN_PERM | unix.FAN_OPEN_EXEC_PERM

// Event is one record as the kernel wrote it.
type Event struct {
	Mask  uint64 // FAN_* bits
	FD    int32  // the object, open for reading; negative: none, or an errno
	PID   int32  // thread group id in the reader's pid namespace, 0 if outside it
	PIDFD int32  // descriptor of the process, negative if there is none
}

// Permission reports whether somebody waits for an answer.
func (e Event) Permission() bool { return e.Mask&permMask != 0 }

// Close closes the event's descriptors; a waiting process is not answered.
func (e Event) Close() {
	if e.FD >= 0 {
		_ = unix.Close(int(e.FD))
	}
	if e.PIDFD >= 0 {
		_ = unix.Close(int(e.PIDFD))
	}
}

// Parse takes the first event off buf and returns what follows it. Unknown
// information records are skipped.
func Parse(buf []byte) (Event, []byte, error) {
	if len(buf) < headerLen {
		return Event{}, nil, fmt.Errorf("parsing fanotify event: %d bytes left, a header has %d", len(buf), headerLen)
	}
	ne := binary.NativeEndian
	total, meta := uint64(ne.Uint32(buf)), uint64(ne.Uint16(buf[6:]))
	if v := buf[4]; v != metadataVersion {
		return Event{}, nil, fmt.Errorf("parsing fanotify event: version %d, want %d", v, metadataVersion)
	}
	if meta < headerLen || total < meta || total > uint64(len(buf)) {
		return Event{}, nil, fmt.Errorf("parsing fanotify event: length %d, header %d, %d bytes left", total, meta, len(buf))
	}
	e := Event{
		Mask:  ne.Uint64(buf[8:]),
		FD:    int32(ne.Uint32(buf[16:])),
		PID:   int32(ne.Uint32(buf[20:])),
		PIDFD: unix.FAN_NOPIDFD,
	}
	for info := buf[meta:total]; len(info) >= infoHeaderLen; {
		n := int(ne.Uint16(info[2:]))
		if n < infoHeaderLen || n > len(info) {
			break // the event itself is whole and must be answered
		}
		if info[0] == unix.FAN_EVENT_INFO_TYPE_PIDFD && n >= pidfdInfoLen {
			e.PIDFD = int32(ne.Uint32(info[4:]))
		}
		info = info[n:]
	}
	return e, buf[total:], nil
}

func putResponse(b *[responseLen]byte, fd int32, allow bool) {
	answer := uint32(unix.FAN_DENY)
	if allow {
		answer = unix.FAN_ALLOW
	}
	binary.NativeEndian.PutUint32(b[:4], uint32(fd))
	binary.NativeEndian.PutUint32(b[4:], answer)
}
