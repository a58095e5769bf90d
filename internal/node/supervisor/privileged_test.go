//go:build privileged

package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/driver/fanotify"
	"github.com/lazaret/lazaret/internal/driver/loopfs"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/task"
)

const deadline = 2 * time.Second

func TestMain(m *testing.M) {
	loopfs.Act()
	if kind, log, ok := strings.Cut(os.Getenv(envService), " "); ok {
		if rest, ok := strings.CutPrefix(kind, "driver:"); ok {
			os.Exit(driverService(rest, log))
		}
		os.Exit(service(kind, log))
	}
	os.Exit(loopfs.Main(m))
}

// slow takes its time for each file and denies evil ones.
type slow struct{ delay time.Duration }

func (s slow) Access(_ context.Context, ev *event.File) fanotify.Answer {
	time.Sleep(s.delay)
	b := make([]byte, 64)
	n, _ := ev.File.ReadAt(b, 0)
	return fanotify.Answer{Allow: !bytes.Contains(b[:n], []byte("evil"))}
}
func (slow) Written(context.Context, *event.File) {}
func (slow) Overflow(context.Context)             {}

// driverService is a service with a driver, told by "MODE:HOLD:DELAY:ONCE:DIR".
func driverService(arg, log string) int {
	f := strings.SplitN(arg, ":", 5)
	hold, err1 := time.ParseDuration(f[1])
	delay, err2 := time.ParseDuration(f[2])
	old, _ := os.ReadFile(log)
	out, err3 := os.OpenFile(log, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if errors.Join(err1, err2, err3) != nil || f[3] == "once" && len(old) > 0 {
		return 1
	}
	err := func() error {
		child, err := Attach()
		if err != nil {
			return err
		}
		ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
		defer stop()
		if err := child.SetMode(Mode{Closed: f[0] == "closed", Hold: hold}); err != nil {
			return err
		}
		d, err := fanotify.New(fanotify.Config{
			Group: child.Group(), Handler: slow{delay}, Conditions: &condition.Set{},
			Deadline: deadline, FailClosed: f[0] == "closed",
		})
		if err != nil {
			return err
		}
		return task.Run(ctx,
			func(ctx context.Context) error { return child.Run(ctx, nil) },
			func(ctx context.Context) error {
				gap, err := child.Ready(ctx)
				if err != nil {
					return err
				}
				if err := d.Protect(f[4]); err != nil {
					return err
				}
				_, _ = fmt.Fprintf(out, "ready %d %d pid=%d\n", gap.Allowed, gap.Denied, os.Getpid())
				return d.Run(ctx)
			})
	}()
	if err != nil {
		_, _ = fmt.Fprintln(out, "error", err)
		return 1
	}
	return 0
}

// stand is a supervisor with a driver service over a file system of its own.
type stand struct {
	t         *testing.T
	dir, log  string
	good, bad string
	actor     *loopfs.Actor
	stop      func()
}

func newStand(t *testing.T, mode string, hold, delay time.Duration, once string, change func(*stand, *Config)) *stand {
	t.Helper()
	dir := loopfs.New(t, "ext4")
	s := &stand{t: t, dir: dir, log: filepath.Join(t.TempDir(), "log"), good: filepath.Join(dir, "good"), bad: filepath.Join(dir, "bad")}
	require.NoError(t, os.WriteFile(s.good, []byte("harmless"), 0o600))
	require.NoError(t, os.WriteFile(s.bad, []byte("evil"), 0o600))
	g, _, err := fanotify.Open(fanotify.GroupConfig{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	cfg := Config{
		Command: []string{"/proc/self/exe"}, Group: g,
		Env:       append(os.Environ(), fmt.Sprintf("%s=driver:%s:%s:%s:%s:%s %s", envService, mode, hold, delay, once, dir, s.log)),
		Heartbeat: 50 * time.Millisecond, Silence: 700 * time.Millisecond, Backoff: time.Millisecond, Stop: time.Second,
	}
	if change != nil {
		change(s, &cfg)
	}
	sup, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sup.Close()) })
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- sup.Run(ctx) }()
	stopped := false
	s.stop = func() {
		if !stopped {
			stopped = true
			cancel()
			require.NoError(t, <-ended)
		}
	}
	t.Cleanup(s.stop)
	s.actor = loopfs.NewActor(t)
	s.ready(1)
	return s
}

var readyLine = regexp.MustCompile(`ready (\d+) (\d+) pid=(\d+)`)

// ready waits for the nth start of the service and returns its pid and what
// it was told.
func (s *stand) ready(n int) (pid, allowed, denied int) {
	s.t.Helper()
	var lines [][]string
	require.Eventually(s.t, func() bool {
		b, _ := os.ReadFile(s.log)
		lines = readyLine.FindAllStringSubmatch(string(b), -1)
		return len(lines) >= n
	}, 15*time.Second, time.Millisecond)
	num := func(i int) int { v, _ := strconv.Atoi(lines[n-1][i]); return v }
	return num(3), num(1), num(2)
}

// TestKillDuringOpens: the service is killed several times in the middle of
// 10,000 opens; nobody waits longer than the deadline, and what was allowed
// meanwhile is reported to the next service.
func TestKillDuringOpens(t *testing.T) {
	for _, mode := range []string{"open", "closed"} {
		t.Run(mode, func(t *testing.T) {
			s := newStand(t, mode, 0, 2*time.Millisecond, "", nil)
			var actors []*loopfs.Actor
			for range 10 {
				a := loopfs.NewActor(t)
				a.Patience = time.Minute
				a.Start("slowest:1000", s.good)
				actors = append(actors, a)
			}
			reported := 0
			for i := 1; i <= 3; i++ {
				pid, allowed, denied := s.ready(i)
				reported += allowed + denied
				time.Sleep(200 * time.Millisecond)
				require.NoError(t, unix.Kill(pid, unix.SIGKILL))
			}
			_, allowed, denied := s.ready(4)
			if mode == "open" {
				require.Zero(t, denied)
			} else {
				require.Zero(t, allowed)
			}
			require.Positive(t, reported+allowed+denied, "accesses without inspection are reported")
			for _, a := range actors {
				worst, err := time.ParseDuration(a.Wait())
				require.NoError(t, err)
				require.Less(t, worst, deadline)
			}
			require.Equal(t, "EPERM", s.actor.Do("open", s.bad), "protection is back")
			require.Equal(t, "ok", s.actor.Do("open", s.good))
		})
	}
}

// TestHold: with a hold, an access during the restart waits for the new service
// and is inspected by it.
func TestHold(t *testing.T) {
	s := newStand(t, "closed", 10*time.Second, 0, "", nil)
	for i := 1; i <= 3; i++ {
		pid, _, _ := s.ready(i)
		require.NoError(t, unix.Kill(pid, unix.SIGKILL))
		require.Equal(t, "ok", s.actor.Do("open", s.good))
		require.Equal(t, "EPERM", s.actor.Do("open", s.bad))
		_, allowed, denied := s.ready(i + 1)
		require.Zero(t, allowed+denied, "all were inspected")
	}
}

// TestNoServiceComesBack: the mode answers, at once or after the hold.
func TestNoServiceComesBack(t *testing.T) {
	for mode, want := range map[string]string{"open": "ok", "closed": "EPERM"} {
		for _, hold := range []time.Duration{0, 300 * time.Millisecond} {
			s := newStand(t, mode, hold, 0, "once", nil)
			pid, _, _ := s.ready(1)
			require.NoError(t, unix.Kill(pid, unix.SIGKILL))
			time.Sleep(50 * time.Millisecond)
			start := time.Now()
			require.Equal(t, want, s.actor.Do("open", s.good))
			require.Less(t, time.Since(start), hold+500*time.Millisecond)
			require.Equal(t, want, s.actor.Do("open", s.bad))
		}
	}
}

// TestHungService: a service that stops is killed and replaced; an access that
// it had read is answered.
func TestHungService(t *testing.T) {
	s := newStand(t, "open", 0, 500*time.Millisecond, "", nil)
	pid, _, _ := s.ready(1)
	s.actor.Start("open", s.good)
	time.Sleep(100 * time.Millisecond) // it has been read
	require.NoError(t, unix.Kill(pid, unix.SIGSTOP))
	start := time.Now()
	require.Equal(t, "ok", s.actor.Wait())
	require.Less(t, time.Since(start), deadline)
	_, allowed, _ := s.ready(2)
	require.Equal(t, 1, allowed)
}

// TestProgramOnProtectedFileSystem: the service's own program is protected
// too; with fail closed and a hold it must still be able to start.
func TestProgramOnProtectedFileSystem(t *testing.T) {
	s := newStand(t, "closed", 20*time.Second, 0, "", func(s *stand, c *Config) {
		exe, err := os.ReadFile("/proc/self/exe")
		require.NoError(t, err)
		c.Command[0] = filepath.Join(s.dir, "service")
		require.NoError(t, os.WriteFile(c.Command[0], exe, 0o755))
	})
	pid, _, _ := s.ready(1)
	require.NoError(t, unix.Kill(pid, unix.SIGKILL))
	start := time.Now()
	s.ready(2)
	require.Less(t, time.Since(start), 5*time.Second)
}

// TestStopRemovesMarks: a stop on purpose ends the protection; the group is
// still open, and nobody waits.
func TestStopRemovesMarks(t *testing.T) {
	s := newStand(t, "closed", 0, 0, "", nil)
	require.Equal(t, "EPERM", s.actor.Do("open", s.bad))
	s.stop()
	require.Equal(t, "ok", s.actor.Do("open", s.bad))
}
