package loopfs

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The parts of include/uapi/linux/io_uring.h that one OPENAT needs.
type (
	sqOffsets struct {
		head, tail, mask, entries, flags, dropped, array, resv1 uint32
		userAddr                                                uint64
	}
	cqOffsets struct {
		head, tail, mask, entries, overflow, cqes, flags, resv1 uint32
		userAddr                                                uint64
	}
	uringParams struct {
		sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
		resv                                                                   [3]uint32
		sq                                                                     sqOffsets
		cq                                                                     cqOffsets
	}
	sqe struct {
		opcode, flags uint8
		ioprio        uint16
		fd            int32
		off, addr     uint64
		len           uint32
		openFlags     uint32
		userData      uint64
		pad           [24]byte
	}
	cqe struct {
		userData uint64
		res      int32
		flags    uint32
	}
)

const (
	uringOpOpenat  = 18
	uringGetEvents = 1
	uringOffSQ     = 0
	uringOffCQ     = 0x8000000
	uringOffSQEs   = 0x10000000
)

// uringOpen opens path through io_uring, past the open system calls.
func uringOpen(path string) error {
	var p uringParams
	r, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return fmt.Errorf("io_uring_setup: %s", unix.ErrnoName(errno))
	}
	ring := int(r)
	defer func() { _ = unix.Close(ring) }()
	rw := unix.PROT_READ | unix.PROT_WRITE
	sq, err := unix.Mmap(ring, uringOffSQ, int(p.sq.array+p.sqEntries*4), rw, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the ring: %s", err.Error())
	}
	defer func() { _ = unix.Munmap(sq) }()
	cq, err := unix.Mmap(ring, uringOffCQ, int(p.cq.cqes)+int(p.cqEntries)*int(unsafe.Sizeof(cqe{})), rw, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the ring: %s", err.Error())
	}
	defer func() { _ = unix.Munmap(cq) }()
	entries, err := unix.Mmap(ring, uringOffSQEs, int(p.sqEntries)*int(unsafe.Sizeof(sqe{})), rw, unix.MAP_SHARED)
	if err != nil {
		return fmt.Errorf("mapping the ring: %s", err.Error())
	}
	defer func() { _ = unix.Munmap(entries) }()

	name, err := unix.BytePtrFromString(path)
	if err != nil {
		return err
	}
	var pin runtime.Pinner
	pin.Pin(name)
	defer pin.Unpin()
	*(*sqe)(unsafe.Pointer(&entries[0])) = sqe{
		opcode: uringOpOpenat, fd: unix.AT_FDCWD, addr: uint64(uintptr(unsafe.Pointer(name))), openFlags: unix.O_RDONLY | unix.O_CLOEXEC,
	}
	*(*uint32)(unsafe.Pointer(&sq[p.sq.array])) = 0
	*(*uint32)(unsafe.Pointer(&sq[p.sq.tail]))++ // the system call orders it
	for {
		if _, _, errno = unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(ring), 1, 1, uringGetEvents, 0, 0); errno != unix.EINTR {
			break
		}
	}
	if errno != 0 {
		return fmt.Errorf("io_uring_enter: %s", unix.ErrnoName(errno))
	}
	c := (*cqe)(unsafe.Pointer(&cq[p.cq.cqes]))
	if c.res < 0 {
		return unix.Errno(-c.res)
	}
	return unix.Close(int(c.res))
}
