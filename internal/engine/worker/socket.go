package worker

import (
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// socketPair returns the parent's end as a connection and the child's as a
// file. The caller closes the file once the child has it: as long as a copy
// exists, the parent does not notice the child's death.
func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("creating a socket pair: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "worker"), os.NewFile(uintptr(fds[1]), "pool")
	defer ours.Close() // FileConn has a copy
	conn, err := net.FileConn(ours)
	if err != nil {
		theirs.Close()
		return nil, nil, fmt.Errorf("using a socket pair: %w", err)
	}
	// So that an idle worker wakes up once to give memory back.
	if err := unix.SetsockoptTimeval(fds[1], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: idleSeconds}); err != nil {
		conn.Close()
		theirs.Close()
		return nil, nil, fmt.Errorf("setting the receive timeout: %w", err)
	}
	return conn.(*net.UnixConn), theirs, nil
}

// idleSeconds is how long a worker waits before it gives memory back.
const idleSeconds = 2

// control messages of at most this many descriptors are accepted.
const maxDescriptors = 8

// receive reads one message with blocking calls, which is cheaper than the
// poller for a process with one socket. It returns n == 0 at the end.
func receive(fd int, b, oob []byte) (n int, descriptors []int, err error) {
	for {
		n, oobn, flags, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, nil, err
		}
		if oobn > 0 {
			if descriptors, err = parseRights(oob[:oobn]); err != nil {
				return 0, nil, err
			}
		}
		if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
			return 0, descriptors, errMalformed
		}
		return n, descriptors, nil
	}
}

func parseRights(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parsing a control message: %w", err)
	}
	var all []int
	for i := range messages {
		fds, err := unix.ParseUnixRights(&messages[i])
		if err != nil {
			return nil, fmt.Errorf("parsing descriptors: %w", err)
		}
		all = append(all, fds...)
	}
	return all, nil
}

func send(fd int, b []byte) error {
	for {
		err := unix.Sendmsg(fd, b, nil, nil, unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return err
		}
	}
}
