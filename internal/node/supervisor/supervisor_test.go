package supervisor

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
)

// envService makes the test program a service; its value says how it behaves.
const envService = "LAZARET_TEST_SERVICE"

// service is a tiny service: it writes a line to a log for each start and
// behaves as told.
func service(kind, log string) int {
	note := func(format string, args ...any) {
		f, err := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		if err == nil {
			_, _ = fmt.Fprintf(f, format+"\n", args...)
			_ = f.Close()
		}
	}
	child, err := Attach()
	if err != nil {
		note("attach: %v", err)
		return 1
	}
	defer func() { _ = child.Close() }()
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	if kind == "mute" {
		note("mute")
		time.Sleep(time.Minute)
	}
	beat := make(chan error, 1)
	healthy := func() bool { return true }
	if kind == "sick" {
		began := time.Now()
		healthy = func() bool { return time.Since(began) < 100*time.Millisecond }
	}
	go func() { beat <- child.Run(ctx, healthy) }()
	gap, err := child.Ready(ctx)
	if err != nil {
		note("ready: %v", err)
		return 1
	}
	note("ready %d %d", gap.Allowed, gap.Denied)
	switch kind {
	case "crash":
		return 3
	case "stubborn":
		signal.Ignore(unix.SIGTERM)
		time.Sleep(time.Minute)
	}
	if err := errors.Join(<-beat); err != nil {
		return 1
	}
	note("end")
	return 0
}

// supervise runs a supervisor without a group until the log satisfies done.
func supervise(t *testing.T, kind string, change func(*Config), done func(log string) bool) (string, time.Duration) {
	t.Helper()
	log := filepath.Join(t.TempDir(), "log")
	cfg := Config{
		Command:   []string{"/proc/self/exe"},
		Env:       append(os.Environ(), envService+"="+kind+" "+log),
		Heartbeat: 20 * time.Millisecond, Silence: 300 * time.Millisecond, Startup: 2 * time.Second,
		Stop: 300 * time.Millisecond, Backoff: time.Millisecond, MaxBackoff: 10 * time.Millisecond,
	}
	if change != nil {
		change(&cfg)
	}
	s, err := New(cfg)
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	read := func() string { b, _ := os.ReadFile(log); return string(b) }
	for limit := time.After(time.Minute); !done(read()); {
		select {
		case err := <-ended:
			require.FailNow(t, "the supervisor gave up", "%v, log: %s", err, read())
		case <-limit:
			cancel()
			<-ended
			require.FailNow(t, "it takes too long", "log: %s", read())
		case <-time.After(5 * time.Millisecond):
		}
	}
	start := time.Now()
	cancel()
	require.NoError(t, <-ended)
	return read(), time.Since(start)
}

func TestStartAndStop(t *testing.T) {
	log, _ := supervise(t, "good", nil, func(l string) bool { return strings.Contains(l, "ready 0 0") })
	require.Equal(t, "ready 0 0\nend\n", log, "one start, a clean end")
}

func TestRestartAfterCrash(t *testing.T) {
	supervise(t, "crash", nil, func(l string) bool { return strings.Count(l, "ready") >= 3 })
}

func TestSilentServiceIsKilled(t *testing.T) {
	supervise(t, "sick", nil, func(l string) bool { return strings.Count(l, "ready") >= 2 })
}

func TestMuteServiceIsKilled(t *testing.T) {
	supervise(t, "mute", func(c *Config) { c.Startup = time.Second },
		func(l string) bool { return strings.Count(l, "mute") >= 2 })
}

func TestStubbornServiceIsKilled(t *testing.T) {
	_, took := supervise(t, "stubborn", func(c *Config) { c.Silence = time.Minute },
		func(l string) bool { return strings.Contains(l, "ready") })
	require.Less(t, took, 3*time.Second)
}

func TestMissingProgramIsAnError(t *testing.T) {
	s, err := New(Config{Command: []string{"/nonexistent"}, Backoff: time.Millisecond, MaxBackoff: time.Millisecond})
	require.NoError(t, err)
	err = s.Run(context.Background())
	require.ErrorContains(t, err, "was never ready")
	require.ErrorIs(t, err, os.ErrNotExist)
	require.NoError(t, s.Close())
}

func TestNewRefuses(t *testing.T) {
	_, err := New(Config{})
	require.ErrorContains(t, err, "no command")
}

func TestAttach(t *testing.T) {
	_, err := Attach()
	require.ErrorIs(t, err, ErrNoSupervisor)
	t.Setenv(envControl, "x")
	t.Setenv(envGroup, "y")
	_, err = Attach()
	require.ErrorContains(t, err, "attaching")
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	require.NoError(t, err)
	defer func() { _ = unix.Close(fd) }()
	require.NoError(t, unix.Bind(fd, &unix.SockaddrUnix{Name: path}))
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "60000")
	t.Setenv("WATCHDOG_PID", fmt.Sprint(os.Getpid()))
	supervise(t, "good", nil, func(l string) bool { return strings.Contains(l, "ready") })
	got := map[string]bool{}
	for b := make([]byte, 256); ; {
		n, _, err := unix.Recvfrom(fd, b, unix.MSG_DONTWAIT)
		if err != nil {
			break
		}
		got[string(b[:n])] = true
	}
	require.True(t, got["READY=1"] && got["STOPPING=1"], "%v", got)
}
