package sandbox

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// TestMain lets the test binary be the process that is locked down.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == "locked-down" {
		if err := lockedDown(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

type result struct {
	Report  *Report
	Errno   map[string]int // of each attack, 0: it succeeded
	Content string         // read through a descriptor
	Threads int
}

// Descriptors that the parent passes.
const (
	readable = 3
	writable = 4
)

func lockedDown() error {
	signal.Ignore(syscall.SIGXFSZ)
	runtime.LockOSThread()
	report, err := Enter(Config{Data: 4 << 30})
	if err != nil {
		return err
	}
	r := result{Report: report, Errno: map[string]int{}}
	for name, attack := range attacks() {
		err := attack()
		var errno syscall.Errno
		switch {
		case err == nil:
			r.Errno[name] = 0
		case errors.As(err, &errno):
			r.Errno[name] = int(errno)
		default:
			r.Errno[name] = -1
		}
	}
	b := make([]byte, 100)
	n, err := unix.Pread(readable, b, 0)
	if err != nil {
		return fmt.Errorf("reading what was passed: %w", err)
	}
	r.Content = string(b[:n])
	r.Threads = threads()
	return json.NewEncoder(os.Stdout).Encode(r)
}

// threads starts some on their own OS threads, which must still be possible.
func threads() int {
	var wg sync.WaitGroup
	var mu sync.Mutex
	seen := map[int]bool{}
	for range 8 {
		wg.Go(func() {
			runtime.LockOSThread() // ends the thread too
			time.Sleep(20 * time.Millisecond)
			mu.Lock()
			defer mu.Unlock()
			seen[unix.Gettid()] = true
		})
	}
	wg.Wait()
	runtime.GC()
	return len(seen)
}

func call(number uintptr, args ...uintptr) func() error {
	return func() error {
		var a [6]uintptr
		copy(a[:], args)
		if _, _, errno := syscall.RawSyscall6(number, a[0], a[1], a[2], a[3], a[4], a[5]); errno != 0 {
			return errno
		}
		return nil
	}
}

// child is a clone call whose child ends at once, should there be one.
func child(flags uintptr) func() error {
	return func() error {
		pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags, 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid == 0 {
			for {
				syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
			}
		}
		return nil
	}
}

func attacks() map[string]func() error {
	parent := uintptr(os.Getppid())
	open := func(path string, flags int) func() error {
		return func() error { _, err := unix.Open(path, flags, 0o600); return err }
	}
	socket := func(family, kind int) func() error {
		return func() error { _, err := unix.Socket(family, kind, 0); return err }
	}
	path, _ := unix.BytePtrFromString("/bin/true")
	bin := uintptr(unsafe.Pointer(path))
	page := uintptr(os.Getpagesize())
	private := uintptr(unix.MAP_PRIVATE | unix.MAP_ANONYMOUS)
	return map[string]func() error{
		"open a file":          open("/etc/passwd", unix.O_RDONLY),
		"open itself":          open("/proc/self/exe", unix.O_RDONLY),
		"create a file":        open("/tmp/lazaret-sandbox-escape", unix.O_CREAT|unix.O_WRONLY),
		"open a directory":     open("/", unix.O_DIRECTORY|unix.O_PATH),
		"stat":                 func() error { var st unix.Stat_t; return unix.Stat("/", &st) },
		"link":                 func() error { return unix.Link("/etc/passwd", "/tmp/lazaret-sandbox-escape") },
		"write to a file":      func() error { _, err := unix.Write(writable, []byte("x")); return err },
		"internet socket":      socket(unix.AF_INET, unix.SOCK_STREAM),
		"packet socket":        socket(unix.AF_PACKET, unix.SOCK_RAW),
		"unix socket":          socket(unix.AF_UNIX, unix.SOCK_STREAM),
		"netlink socket":       socket(unix.AF_NETLINK, unix.SOCK_RAW),
		"socket pair":          func() error { _, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0); return err },
		"fork":                 child(uintptr(unix.SIGCHLD)),
		"fork, other signal":   child(9), // 9 is also a call number
		"fork, shared memory":  child(unix.CLONE_VM | unix.CLONE_FILES),
		"clone3":               call(unix.SYS_CLONE3, 0, 0),
		"exec":                 call(unix.SYS_EXECVE, bin, 0, 0),
		"exec at":              call(unix.SYS_EXECVEAT, readable, bin, 0, 0, 0),
		"memory file":          call(unix.SYS_MEMFD_CREATE, bin, 0),
		"executable memory":    call(unix.SYS_MMAP, 0, page, unix.PROT_READ|unix.PROT_EXEC, private, ^uintptr(0), 0),
		"executable file":      call(unix.SYS_MMAP, 0, page, unix.PROT_READ|unix.PROT_EXEC, unix.MAP_PRIVATE, readable, 0),
		"memory into code":     call(unix.SYS_MPROTECT, uintptr(unsafe.Pointer(path))&^(page-1), page, unix.PROT_READ|unix.PROT_EXEC),
		"kill the parent":      call(unix.SYS_KILL, parent, 0),
		"signal the parent":    call(unix.SYS_TGKILL, parent, parent, 0),
		"trace the parent":     call(unix.SYS_PTRACE, unix.PTRACE_ATTACH, parent),
		"read parent's memory": call(unix.SYS_PROCESS_VM_READV, parent, 0, 0, 0, 0, 0),
		"descriptor of parent": call(unix.SYS_PIDFD_OPEN, parent, 0),
		"become root":          call(unix.SYS_SETUID, 0),
		"new namespaces":       call(unix.SYS_UNSHARE, unix.CLONE_NEWUSER),
		"mount":                call(unix.SYS_MOUNT, bin, bin, bin, 0, 0),
		"bpf":                  call(unix.SYS_BPF, 0, 0, 0),
		"io_uring":             call(unix.SYS_IO_URING_SETUP, 1, 0),
		"perf":                 call(unix.SYS_PERF_EVENT_OPEN, 0, 0, 0, 0, 0),
		"userfaultfd":          call(unix.SYS_USERFAULTFD, 0),
		"keys":                 call(unix.SYS_KEYCTL, 0, 0),
		"raise limits":         func() error { return unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1000, Max: 1000}) },
		"prctl":                call(unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 1),
		"ioctl":                call(unix.SYS_IOCTL, readable, 0, 0),
	}
}

// run starts the test binary as an unprivileged user and returns what it found.
func run(t *testing.T, attr *syscall.SysProcAttr) result {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/in", []byte("passed"), 0o600))
	in, err := os.Open(dir + "/in")
	require.NoError(t, err)
	defer in.Close()
	out, err := os.Create(dir + "/out")
	require.NoError(t, err)
	defer out.Close()
	self, err := os.Open("/proc/self/exe")
	require.NoError(t, err)
	defer self.Close()
	high, err := unix.FcntlInt(self.Fd(), unix.F_DUPFD_CLOEXEC, 100)
	require.NoError(t, err)
	defer unix.Close(high)

	// The binary may lie where only root can go.
	cmd := exec.Command(fmt.Sprintf("/proc/self/fd/%d", high), "locked-down")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{in, out}
	cmd.SysProcAttr = attr
	cmd.Stderr = os.Stderr
	stdout, err := cmd.Output()
	require.NoError(t, err)
	var r result
	require.NoError(t, json.Unmarshal(stdout, &r))
	written, err := os.ReadFile(dir + "/out")
	require.NoError(t, err)
	require.Empty(t, written)
	return r
}

func unprivileged() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() == 0 {
		attr.Credential = &syscall.Credential{Uid: 65534, Gid: 65534}
	}
	return attr
}

func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	r := run(t, unprivileged())
	require.True(t, r.Report.Seccomp)
	require.Positive(t, r.Report.Landlock, "this kernel has no Landlock")
	for name, errno := range r.Errno {
		want := unix.EPERM
		switch name {
		case "clone3":
			want = unix.ENOSYS
		case "write to a file":
			want = unix.EFBIG
		}
		require.Equal(t, want, syscall.Errno(errno), "%s: %v", name, syscall.Errno(errno))
	}
	require.Equal(t, "passed", r.Content, "descriptors must stay readable")
	require.Equal(t, 8, r.Threads, "threads must still work")
	require.NoFileExists(t, "/tmp/lazaret-sandbox-escape")
}

func TestRefusesPrivileges(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		r := run(t, unprivileged())
		require.NotZero(t, r.Report.User)
		return
	}
	cmd := exec.Command(os.Args[0], "locked-down")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	require.Error(t, err)
	require.Contains(t, string(out), "still has capabilities")
}
