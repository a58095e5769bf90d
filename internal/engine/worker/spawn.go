package worker

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// spawner starts the engine program with as little as the machine lets us. It
// keeps the program open: all workers are the same version, even while the
// file is being replaced, and the program may lie where nobody can go.
type spawner struct {
	program  *os.File
	path     string
	uid, gid int

	start chan func()
	once  sync.Once
}

// Environment variables that tell an engine process how it was started.
const (
	NamespacesVariable  = "LAZARET_NAMESPACES"   // set if it has namespaces of its own
	MemoryLimitVariable = "LAZARET_MEMORY_LIMIT" // bytes
)

// nobody is the user that exists everywhere and owns nothing.
const nobody = 65534

func newSpawner(path string, uid, gid int) (*spawner, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("opening the engine program: %w", err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() || st.Mode()&0o111 == 0 {
		return nil, fmt.Errorf("opening the engine program: %s is not an executable file", path)
	}
	// A high number, because the child gets its own descriptors at low ones
	// before it executes this one.
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 100)
	if err != nil {
		return nil, fmt.Errorf("duplicating the engine program's descriptor: %w", err)
	}
	if uid == 0 {
		uid = nobody
	}
	if gid == 0 {
		gid = nobody
	}
	s := &spawner{program: os.NewFile(uintptr(fd), path), path: path, uid: uid, gid: gid, start: make(chan func())}
	go s.run()
	return s, nil
}

// run starts processes from one thread that lives as long as the spawner: the
// kernel sends a child its parent-death signal when the thread that started it
// ends, and Go ends threads.
func (s *spawner) run() {
	runtime.LockOSThread()
	for f := range s.start {
		f()
	}
}

// close ends the spawner; nothing may be started any more.
func (s *spawner) close() {
	s.once.Do(func() {
		close(s.start)
		s.program.Close()
	})
}

// spawn starts the program. cmd brings arguments, environment and files.
func (s *spawner) spawn(ctx context.Context, cmd *exec.Cmd) error {
	cmd.Path = fmt.Sprintf("/proc/self/fd/%d", s.program.Fd())
	cmd.Dir = "/"
	done := make(chan error, 1)
	f := func() { done <- s.tryAll(cmd) }
	select {
	case s.start <- f:
		return <-done
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *spawner) tryAll(cmd *exec.Cmd) error {
	var all error
	for _, attr := range s.attributes() {
		try := *cmd //nolint:govet // an unstarted Cmd may be copied
		try.SysProcAttr = attr
		if attr.Cloneflags != 0 {
			try.Env = append(slices.Clone(cmd.Env), NamespacesVariable+"=1")
		}
		err := try.Start()
		if err == nil {
			*cmd = try //nolint:govet // the started one is what the caller waits for
			return nil
		}
		all = errors.Join(all, err)
		if !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSPC) &&
			!errors.Is(err, unix.EUSERS) && !errors.Is(err, unix.EACCES) {
			break
		}
	}
	return fmt.Errorf("starting %s: %w", s.path, all)
}

// attributes lists how to start, the most restricted first. Each worker gets
// empty network, IPC, mount and host name namespaces if the machine allows it.
func (s *spawner) attributes() []*syscall.SysProcAttr {
	const empty = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS
	if os.Geteuid() == 0 {
		user := &syscall.Credential{Uid: uint32(s.uid), Gid: uint32(s.gid)}
		return []*syscall.SysProcAttr{
			{Pdeathsig: syscall.SIGKILL, Credential: user, Cloneflags: empty},
			{Pdeathsig: syscall.SIGKILL, Credential: user},
		}
	}
	return []*syscall.SysProcAttr{
		{
			Pdeathsig: syscall.SIGKILL, Cloneflags: empty | syscall.CLONE_NEWUSER,
			UidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Geteuid(), Size: 1}},
			GidMappings: []syscall.SysProcIDMap{{ContainerID: nobody, HostID: os.Getegid(), Size: 1}},
		},
		{Pdeathsig: syscall.SIGKILL},
	}
}
