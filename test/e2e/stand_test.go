//go:build privileged

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

// The paths and images of the stand's containers.
const (
	imageClean = "localhost/lazaret/clean:1"
	imageBad   = "localhost/lazaret/infected:1"
	labelName  = "lazaret-test" // its value names the policy of a container
	deadline   = 5 * time.Second
)

// stand is a host with containers that Lazaret protects.
type stand struct {
	dir    string // state, configuration, log; not protected
	rt     *containerdtest.Runtime
	bind   string // a directory on the protected file system
	daemon *exec.Cmd
	exited chan struct{}
	log    *os.File
	next   int
}

// newStand starts containerd and Lazaret. The images are imported before, so
// that the runtime itself is not kept from unpacking the infected one.
func newStand(t *testing.T) *stand {
	t.Helper()
	dir, err := os.MkdirTemp("", "lze")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s := &stand{dir: dir}
	require.NoError(t, os.Mkdir(filepath.Join(dir, "c"), 0o755))
	s.rt, err = containerdtest.Start(t.Context(), containerdtest.Config{Dir: filepath.Join(dir, "c")})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.rt.Close()) })
	actor, err := os.ReadFile(program("actor"))
	require.NoError(t, err)
	tool := containerdtest.Layer{{Path: "bin/actor", Data: actor, Mode: 0o755}}
	_, err = s.rt.Image(t.Context(), imageClean, tool)
	require.NoError(t, err)
	_, err = s.rt.Image(t.Context(), imageBad, tool, containerdtest.Layer{{Path: "opt/lower", Data: []byte(eicar(1)), Mode: 0o755}})
	require.NoError(t, err)
	s.bind = filepath.Join(s.rt.Mount(), "bind")
	require.NoError(t, os.Mkdir(s.bind, 0o755))
	s.configure(t)
	s.start(t)
	t.Cleanup(func() { s.stop(t) })
	return s
}

func (s *stand) configure(t *testing.T) {
	t.Helper()
	text := fmt.Sprintf(`stateDir: %[1]s/state
runDir: %[1]s/run
node: stand
listen: "off"
protect: {containers: "off", paths: [%[2]s]}
failure: {mode: open, deadline: %[3]s, hold: 2s}
engine: {program: %[4]s, workers: 2}
runtimes: {containerd: %[5]s, docker: "off", nri: "off"}
log: {level: info}
`, s.dir, s.rt.Mount(), deadline, program("lazaret-engine"), s.rt.Socket)
	write(t, filepath.Join(s.dir, "lazaret.yaml"), []byte(text))
}

// start starts the daemon and waits until it protects.
func (s *stand) start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	require.NoError(t, err)
	s.daemon = exec.Command(program("lazaret"), "up")
	s.daemon.Env = s.env()
	s.daemon.Stdout, s.daemon.Stderr = log, log
	s.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGTERM}
	began := time.Now()
	require.NoError(t, s.daemon.Start())
	s.exited, s.log = make(chan struct{}), log
	go func() {
		_ = s.daemon.Wait() // its state is looked at by stop
		close(s.exited)
	}()
	s.ready(t, began)
}

// ready waits until a service that was started after a time protects.
func (s *stand) ready(t *testing.T, after time.Time) {
	t.Helper()
	s.within(t, 40*time.Second, "lazaret is ready", func() bool {
		var st api.Status
		return s.ask(&st, "status") == nil && st.Epoch > 0 && len(st.Nodes) == 1 &&
			st.Nodes[0].Report.Epoch == st.Epoch && len(st.Nodes[0].Report.Protected) > 0 &&
			st.Nodes[0].LastSeen.After(after)
	})
}

// stop ends the daemon as systemd would; what does not end is killed, so that
// no permission group outlives the test.
func (s *stand) stop(t *testing.T) {
	if s.daemon == nil {
		return
	}
	_ = s.daemon.Process.Signal(unix.SIGTERM)
	select {
	case <-s.exited:
		if code := s.daemon.ProcessState.ExitCode(); code != 0 {
			t.Errorf("lazaret up ended with %d", code)
		}
	case <-time.After(30 * time.Second):
		t.Errorf("lazaret up did not end")
		for _, pid := range append(children(s.daemon.Process.Pid), s.daemon.Process.Pid) {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		<-s.exited
	}
	if t.Failed() {
		t.Logf("the daemon's log ends with:\n%s", s.tail(6000))
	}
	_ = s.log.Close()
	s.daemon = nil
}

func (s *stand) tail(n int) string {
	b, err := os.ReadFile(filepath.Join(s.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-n):])
}

func (s *stand) env() []string {
	return append(os.Environ(), "LAZARET_CONFIG="+filepath.Join(s.dir, "lazaret.yaml"), "XDG_CACHE_HOME="+filepath.Join(s.dir, "cache"))
}

// lazaret runs the command line and returns its output and exit code.
func (s *stand) lazaret(args ...string) (stdout, stderr string, code int) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program("lazaret"), args...)
	cmd.Env = s.env()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err.Error(), -1
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// ask runs a command with -o json and decodes its answer.
func (s *stand) ask(out any, args ...string) error {
	stdout, stderr, code := s.lazaret(append(args, "-o", "json")...)
	if code != 0 {
		return fmt.Errorf("lazaret %s: exit code %d: %s", strings.Join(args, " "), code, stderr)
	}
	if err := json.Unmarshal([]byte(stdout), out); err != nil {
		return fmt.Errorf("lazaret %s: %w: %s", strings.Join(args, " "), err, stdout)
	}
	return nil
}

// within waits for something to become true.
func (s *stand) within(t *testing.T, d time.Duration, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !f(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s: not within %s; the daemon's log ends with:\n%s", what, d, s.tail(4000))
		}
	}
}

func (s *stand) findings(t *testing.T) []threat.Finding {
	t.Helper()
	var list []threat.Finding
	require.NoError(t, s.ask(&list, "finding", "list", "--limit", "0"))
	return list
}

// finding waits for the finding of a path in a container.
func (s *stand) finding(t *testing.T, c *containerdtest.Container, path string, want func(*threat.Finding) bool) threat.Finding {
	t.Helper()
	var found threat.Finding
	s.within(t, 10*time.Second, "finding of "+c.ID+path, func() bool {
		for _, f := range s.findings(t) {
			if f.Workload.Name == c.ID && f.Location.Path == path && want(&f) {
				found = f
				return true
			}
		}
		return false
	})
	return found
}

func (s *stand) has(t *testing.T, c *containerdtest.Container, path string) bool {
	t.Helper()
	for _, f := range s.findings(t) {
		if f.Workload.Name == c.ID && f.Location.Path == path {
			return true
		}
	}
	return false
}

// result is the outcome of a decision by action.
func result(f *threat.Finding, a threat.Action) string {
	for i := len(f.Decisions) - 1; i >= 0; i-- {
		if f.Decisions[i].Action == a {
			return f.Decisions[i].Result
		}
	}
	return ""
}

// container starts one that the named policy covers, and ends it with the test.
func (s *stand) container(t *testing.T, image, policy string) *containerdtest.Container {
	t.Helper()
	s.next++
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	c, err := s.rt.RunSpec(ctx, containerdtest.Spec{
		ID: policy + strconv.Itoa(s.next), Image: image, Binds: map[string]string{s.bind: "/srv"},
		Labels: map[string]string{labelName: policy},
	})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := c.Stop(ctx); err != nil {
			t.Errorf("stopping %s: %v", c.ID, err)
		}
	})
	return c
}

// act does something to a file inside a container and returns what came of it.
func act(t *testing.T, c *containerdtest.Container, verb, path string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second)
	defer cancel()
	r, err := c.Exec(ctx, "/bin/actor", verb, path)
	require.NoError(t, err)
	require.Zero(t, r.Code, "%s%s", r.Stdout, r.Stderr)
	return strings.TrimSpace(r.Stdout)
}

// service is the pid of the supervised service.
func (s *stand) service(t *testing.T) int {
	t.Helper()
	pid := 0
	s.within(t, 10*time.Second, "the service runs", func() bool {
		for _, p := range children(s.daemon.Process.Pid) {
			pid = p
		}
		return pid != 0
	})
	return pid
}

// counter is one of the node's counters.
func (s *stand) counter(t *testing.T, name string) int64 {
	t.Helper()
	var n api.Node
	require.NoError(t, s.ask(&n, "node", "show", "stand"))
	return n.Report.Stats[name]
}

// children returns the pids whose parent is pid.
func children(pid int) []int {
	var out []int
	files, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		rest := string(b[bytes.LastIndexByte(b, ')')+1:])
		fields := strings.Fields(rest)
		if len(fields) > 2 && fields[0] != "Z" && fields[1] == strconv.Itoa(pid) {
			n, _ := strconv.Atoi(strings.Split(f, "/")[2])
			out = append(out, n)
		}
	}
	return out
}
