// Package sandbox locks a process down before it touches hostile bytes. What a
// process keeps is: its memory, threads, clocks, and the descriptors it has or
// is sent. It cannot open files, create sockets, start programs, change
// memory into code, signal others or gain privileges.
//
// The layers do not depend on each other: Landlock (no rule, so nothing is
// allowed), a seccomp allow-list, resource limits, and, set by whoever starts
// the process, an unprivileged user and empty namespaces. What the kernel does
// not offer is left out and reported; without seccomp Enter fails.
//
// Sources: Documentation/userspace-api/{landlock,seccomp_filter}.rst of Linux,
// prctl(2), setrlimit(2).
package sandbox

import (
	"errors"
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
	landlocksys "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"
)

// Config says what the process needs beyond matching bytes in memory.
type Config struct {
	// FileSize is the size in bytes up to which the process may write to the
	// files it has descriptors of; 0: not at all.
	FileSize int64
	// Data bounds private writable memory in bytes (RLIMIT_DATA), 0: no bound.
	// Go reserves generously: leave half a gigabyte above the real limit.
	Data int64
	// Namespaces is what the parent says about how it started the process.
	Namespaces bool
}

// Report says which layers are in force.
type Report struct {
	Landlock int  `json:"landlock"` // ABI version, 0: not offered by the kernel
	Seccomp  bool `json:"seccomp"`
	// User and Namespaces are what the process was started with.
	User       int  `json:"user"`
	Namespaces bool `json:"namespaces"`
}

const (
	maxFiles = 64
	// Threads count as processes of the user on the whole machine, and other
	// services may run as nobody: a tight limit would fail innocent workers.
	// That there is no fork at all is seccomp's job.
	maxProcesses = 4096
)

// Enter locks the calling process down, all its threads and for good.
func Enter(c Config) (*Report, error) {
	// Not dumpable: no core, no ptrace by the same user, /proc/self of root.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return nil, fmt.Errorf("making the process undumpable: %w", err)
	}
	limits := []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_CORE, 0},
		{unix.RLIMIT_NOFILE, maxFiles},
		{unix.RLIMIT_FSIZE, uint64(max(c.FileSize, 0))},
		{unix.RLIMIT_NPROC, maxProcesses},
		{unix.RLIMIT_MEMLOCK, 0},
		{unix.RLIMIT_MSGQUEUE, 0},
	}
	if c.Data > 0 {
		limits = append(limits, struct {
			resource int
			max      uint64
		}{unix.RLIMIT_DATA, uint64(c.Data)})
	}
	for _, l := range limits {
		if err := limit(l.resource, l.max); err != nil {
			return nil, err
		}
	}
	if err := dropCapabilities(); err != nil {
		return nil, err
	}
	r := &Report{User: unix.Getuid(), Namespaces: c.Namespaces}
	if abi, err := landlocksys.LandlockGetABIVersion(); err == nil {
		r.Landlock = abi
	}
	// Sets no_new_privs on all threads too.
	if err := landlock.V9.BestEffort().Restrict(); err != nil {
		return nil, fmt.Errorf("restricting the process with Landlock: %w", err)
	}
	if err := restrictCalls(c.FileSize > 0); err != nil {
		return nil, err
	}
	r.Seccomp = true
	return r, nil
}

func limit(resource int, maximum uint64) error {
	var l unix.Rlimit
	if err := unix.Getrlimit(resource, &l); err != nil {
		return fmt.Errorf("reading limit %d: %w", resource, err)
	}
	if l.Max < maximum {
		maximum = l.Max
	}
	if err := unix.Setrlimit(resource, &unix.Rlimit{Cur: maximum, Max: maximum}); err != nil {
		return fmt.Errorf("setting limit %d: %w", resource, err)
	}
	return nil
}

// dropCapabilities refuses to go on with capabilities: exec as an unprivileged
// user has cleared them, and a process that still has some was started wrong.
func dropCapabilities() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("reading capabilities: %w", err)
	}
	for _, d := range data {
		if d.Effective|d.Permitted != 0 {
			return errors.New("the process still has capabilities: it must be started as an unprivileged user")
		}
	}
	return nil
}
