package sandbox

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The filter is assembled here and not by a library because every guarded call
// must end in a return: a filter that goes on comparing after it has loaded an
// argument takes arguments for call numbers.

// Offsets in struct seccomp_data (linux/seccomp.h).
const (
	offsetCall     = 0
	offsetArch     = 4
	offsetArgument = 16 // 8 bytes each; the low half first on little endian
)

func statement(code uint16, k uint32) unix.SockFilter { return unix.SockFilter{Code: code, K: k} }

func load(offset uint32) unix.SockFilter {
	return statement(unix.BPF_LD|unix.BPF_W|unix.BPF_ABS, offset)
}

func jump(test uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_K | test, Jt: yes, Jf: no, K: k}
}

func answer(action uint32) unix.SockFilter { return statement(unix.BPF_RET|unix.BPF_K, action) }

const (
	allow  = unix.SECCOMP_RET_ALLOW
	refuse = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	absent = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
)

// program assembles the filter. Everything that is not listed fails with
// EPERM, so that a library that tries degrades instead of dying.
func program(writes bool) ([]unix.SockFilter, error) {
	arch, ok := map[string]uint32{"amd64": unix.AUDIT_ARCH_X86_64, "arm64": unix.AUDIT_ARCH_AARCH64}[runtime.GOARCH]
	if !ok {
		return nil, fmt.Errorf("no system call filter for the architecture %s", runtime.GOARCH)
	}
	p := []unix.SockFilter{
		load(offsetArch),
		jump(unix.BPF_JEQ, arch, 1, 0),
		answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetCall),
		// The x32 calls of amd64 have numbers of their own.
		jump(unix.BPF_JGE, 0x40000000, 0, 1),
		answer(refuse),
		// Its flags are in memory, where a filter cannot look. glibc falls
		// back to clone only if clone3 seems not to exist.
		jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1),
		answer(absent),
	}
	calls := append([]uint32(nil), common...)
	if writes {
		calls = append(calls, writing...)
	}
	for _, call := range calls {
		p = append(p, jump(unix.BPF_JEQ, call, 0, 1), answer(allow))
	}
	for _, g := range guards() {
		yes, no := answer(allow), answer(refuse)
		if !g.want {
			yes, no = no, yes
		}
		p = append(p,
			jump(unix.BPF_JEQ, g.call, 0, 4),
			load(offsetArgument+8*g.argument),
			jump(g.test, g.value, 0, 1),
			yes, no)
	}
	return append(p, answer(refuse)), nil
}

// restrictCalls installs the filter on all threads.
func restrictCalls(writes bool) error {
	p, err := program(writes)
	if err != nil {
		return err
	}
	fprog := unix.SockFprog{Len: uint16(len(p)), Filter: &p[0]}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	// TSYNC copies no_new_privs to the other threads with the filter.
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("giving up new privileges: %w", err)
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER,
		unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&fprog)))
	runtime.KeepAlive(p)
	if errno != 0 {
		return fmt.Errorf("installing the system call filter: %w", errno)
	}
	if thread != 0 {
		return fmt.Errorf("installing the system call filter: thread %d could not follow", thread)
	}
	return nil
}
