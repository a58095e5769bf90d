package sandbox

import "golang.org/x/sys/unix"

// common are the system calls that the Go runtime, glibc's allocator and
// threads, and libyara on memory need on every architecture. None of them
// takes a path.
var common = []uint32{
	// data through descriptors the process has
	unix.SYS_READ, unix.SYS_PREAD64, unix.SYS_CLOSE, unix.SYS_FSTAT, unix.SYS_LSEEK, unix.SYS_FCNTL,
	unix.SYS_WRITE, // Go's poller wakes itself, the dying runtime explains; files come without write access
	unix.SYS_RECVMSG, unix.SYS_SENDMSG, unix.SYS_RECVFROM, unix.SYS_SENDTO,
	// memory
	unix.SYS_MUNMAP, unix.SYS_MADVISE, unix.SYS_MREMAP, unix.SYS_BRK, unix.SYS_MINCORE,
	// threads and time
	unix.SYS_FUTEX, unix.SYS_NANOSLEEP, unix.SYS_CLOCK_NANOSLEEP, unix.SYS_CLOCK_GETTIME, unix.SYS_SCHED_YIELD,
	unix.SYS_SCHED_GETAFFINITY, unix.SYS_GETPID, unix.SYS_GETTID, unix.SYS_SET_ROBUST_LIST, unix.SYS_RSEQ,
	unix.SYS_RESTART_SYSCALL, unix.SYS_MEMBARRIER, unix.SYS_EXIT, unix.SYS_EXIT_GROUP,
	// signals
	unix.SYS_RT_SIGACTION, unix.SYS_RT_SIGPROCMASK, unix.SYS_RT_SIGRETURN, unix.SYS_SIGALTSTACK,
	// Go's poller
	unix.SYS_EPOLL_CREATE1, unix.SYS_EPOLL_CTL, unix.SYS_EPOLL_PWAIT, unix.SYS_EVENTFD2,
	unix.SYS_GETRANDOM,
}

// writing is added for a process that writes files.
var writing = []uint32{unix.SYS_PWRITE64, unix.SYS_FSYNC, unix.SYS_FDATASYNC, unix.SYS_FTRUNCATE}

// guarded are allowed only if one argument has, or lacks, certain bits, or is
// a given value.
type guarded struct {
	call     uint32
	argument uint32
	test     uint16 // unix.BPF_JSET or BPF_JEQ
	value    uint32
	want     bool // outcome of the test that allows the call
}

func guards() []guarded {
	return []guarded{
		// Memory never becomes code.
		{unix.SYS_MMAP, 2, unix.BPF_JSET, unix.PROT_EXEC, false},
		{unix.SYS_MPROTECT, 2, unix.BPF_JSET, unix.PROT_EXEC, false},
		// Threads only, no processes. (A thread in new namespaces needs
		// privileges that the process does not have.)
		{unix.SYS_CLONE, 0, unix.BPF_JSET, unix.CLONE_THREAD, true},
		// The runtime preempts its threads; other processes are none of ours.
		{unix.SYS_TGKILL, 0, unix.BPF_JEQ, uint32(unix.Getpid()), true},
	}
}
