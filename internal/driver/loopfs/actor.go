package loopfs

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const actorArg = "loopfs-actor"

// Act turns the test program into an actor if it was started as one; call it
// first in TestMain.
func Act() {
	if len(os.Args) != 2 || os.Args[1] != actorArg {
		return
	}
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 1<<20)
	for in.Scan() {
		verb, path, _ := strings.Cut(in.Text(), " ")
		fmt.Println(Perform(verb, path))
	}
	os.Exit(0)
}

// Actor is another process that touches files: the test's own accesses are
// always allowed.
type Actor struct {
	t     testing.TB
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines chan string
	// Patience bounds each action; after it the actor is killed and the test
	// fails. Default 20 s.
	Patience time.Duration
}

// NewActor starts an actor that ends with the test.
func NewActor(t testing.TB) *Actor {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", actorArg)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	check(t, err)
	out, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	a := &Actor{t: t, cmd: cmd, in: in, lines: make(chan string), Patience: 20 * time.Second}
	go func() {
		defer close(a.lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			a.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		for range a.lines { // ends when the actor is gone
		}
		_ = cmd.Wait()
	})
	return a
}

// PID of the actor.
func (a *Actor) PID() int { return a.cmd.Process.Pid }

// Start begins an action: open, exec, uring, write:TEXT, store, hold,
// poke, opens:N or slowest:N. Wait returns its result.
func (a *Actor) Start(verb, path string) {
	a.t.Helper()
	if _, err := fmt.Fprintln(a.in, verb, path); err != nil {
		a.t.Errorf("telling the actor: %v", err)
	}
}

// Wait returns "ok", the name of the error or, for slowest, a duration.
func (a *Actor) Wait() string {
	a.t.Helper()
	select {
	case s, ok := <-a.lines:
		if !ok {
			return "actor died"
		}
		return s
	case <-time.After(a.Patience):
		_ = a.cmd.Process.Kill()
		a.t.Errorf("the actor hung for %s", a.Patience)
		return "hung"
	}
}

// Do is Start and Wait.
func (a *Actor) Do(verb, path string) string {
	a.t.Helper()
	a.Start(verb, path)
	return a.Wait()
}

// heldMaps are the mappings of the verb hold.
var heldMaps [][]byte

// Perform does one action in this process and returns its result; see
// Actor.Start. Programs that act inside a container use it.
func Perform(verb, path string) string {
	verb, arg, _ := strings.Cut(verb, ":")
	switch verb {
	case "open":
		return result(open(path, unix.O_RDONLY|unix.O_NONBLOCK))
	case "opens": // N opens in a row
		n, _ := strconv.Atoi(arg)
		for range n {
			if err := open(path, unix.O_RDONLY); err != nil {
				return result(err)
			}
		}
		return "ok"
	case "slowest": // N opens in a row; how long the slowest took
		n, _ := strconv.Atoi(arg)
		var worst time.Duration
		for range n {
			start := time.Now()
			if err := open(path, unix.O_RDONLY); err != nil && !errors.Is(err, unix.EPERM) {
				return result(err)
			}
			worst = max(worst, time.Since(start))
		}
		return worst.String()
	case "exec":
		return result(exec.Command(path).Run())
	case "uring":
		return result(uringOpen(path))
	case "write":
		return result(os.WriteFile(path, []byte(arg), 0o755))
	case "store":
		m, err := mapShared(path)
		if err != nil {
			return result(err)
		}
		m[0] = 'X'
		return result(unix.Munmap(m))
	case "hold": // a writable mapping stays
		m, err := mapShared(path)
		if err == nil {
			m[0] = 'H'
			heldMaps = append(heldMaps, m)
		}
		return result(err)
	case "poke": // a store through the held mapping
		heldMaps[0][1] = 'P'
		return "ok"
	}
	return "unknown verb " + verb
}

func open(path string, flags int) error {
	fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// mapShared maps the file's first page for writing; its descriptor is closed.
func mapShared(path string) ([]byte, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	return unix.Mmap(fd, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

func result(err error) string {
	if err == nil {
		return "ok"
	}
	var errno unix.Errno
	if errors.As(err, &errno) {
		return unix.ErrnoName(errno)
	}
	return strings.ReplaceAll(err.Error(), "\n", " ")
}
