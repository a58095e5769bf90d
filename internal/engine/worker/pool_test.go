package worker

import (
	"bufio"
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

func bundleDir(t testing.TB, rules string) string {
	t.Helper()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "other.yarc"), []byte(rules), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(dir, manifestName), []byte(`{"epoch":1,"files":{"other.yarc":"","rules.json":""}}`), 0o600))
	return dir
}

func newPool(t testing.TB, change func(*Config)) *Pool {
	t.Helper()
	c := Config{Program: os.Args[0], Args: []string{"fake-worker"}, Bundle: bundleDir(t, "rules"), Epoch: 5, Processes: 2,
		Grace: 200 * time.Millisecond, Limits: engine.Limits{Time: 20 * time.Second}}
	if change != nil {
		change(&c)
	}
	p, err := New(c)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func file(t testing.TB, content string) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, []byte(content), 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func inspect(t testing.TB, p *Pool, content string, l engine.Limits) *engine.Result {
	t.Helper()
	r, err := p.Inspect(context.Background(), file(t, content), l)
	require.NoError(t, err)
	require.NotEmpty(t, r.Objects)
	require.Equal(t, threat.Hash(sha256.Sum256([]byte(content))), r.Objects[0].Hash)
	require.EqualValues(t, len(content), r.Objects[0].Size)
	return r
}

func reason(r *engine.Result) string {
	var codes []string
	for _, x := range r.Objects[0].Reasons {
		codes = append(codes, x.Code)
	}
	return strings.Join(codes, " ")
}

func TestInspect(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	r := inspect(t, p, "fine", engine.Limits{})
	require.Equal(t, threat.Clean, r.Verdict())
	require.EqualValues(t, 5, r.Epoch)
	require.Equal(t, "fine", r.Objects[0].Type)
	require.Positive(t, r.Elapsed)
	st := p.Stats()
	require.Equal(t, 2, st.Running)
	require.EqualValues(t, 1, st.Inspected)
	require.Positive(t, st.RSS)
	require.True(t, st.Ready.Sandbox.Seccomp)
	if os.Geteuid() == 0 {
		require.Equal(t, nobody, st.Ready.Sandbox.User)
	}
}

func TestManyMembersAreComplete(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	r := inspect(t, p, "members 9000", engine.Limits{})
	require.Len(t, r.Objects, 9001)
	require.True(t, strings.HasSuffix(r.Objects[9000].Member, "m8999"))
	// More than allowed is no honest answer.
	r = inspect(t, p, "members 30", engine.Limits{Members: 5})
	require.Equal(t, threat.Suspicious, r.Verdict())
}

// An archive of long names must not fill the memory of the service; what is
// bad in it is told all the same.
func TestLongNamesAreBounded(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	r := inspect(t, p, "long-members 20000", engine.Limits{})
	require.Equal(t, threat.Malicious, r.Verdict())
	told := 0
	for i := range r.Objects {
		told += len(r.Objects[i].Member)
	}
	require.Less(t, told, maxDetail+maxMessage)
	require.Equal(t, threat.Malicious, r.Objects[len(r.Objects)-1].Verdict)
	require.Zero(t, p.Stats().Crashes)
}

// A worker that was taken over does not get to fill it either.
func TestEndlessNames(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Args = []string{"fake-liar"}; c.Processes = 1 })
	r := inspect(t, p, "endless names", engine.Limits{})
	require.Equal(t, threat.ReasonEngineCrashed, reason(r))
	require.LessOrEqual(t, len(r.Objects), maxAnswer/60000)
}

func TestCrashTwiceIsSuspicious(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	for _, content := range []string{"crash", "panic"} {
		r := inspect(t, p, content, engine.Limits{})
		require.Equal(t, threat.Suspicious, r.Verdict())
		require.Equal(t, threat.ReasonEngineCrashed, reason(r))
		require.Contains(t, r.Objects[0].Reasons[0].Text, map[string]string{"crash": "exit status 7", "panic": "nil map"}[content])
		require.EqualValues(t, 5, r.Epoch)
	}
	require.EqualValues(t, 4, p.Stats().Crashes)
	require.Equal(t, threat.Clean, inspect(t, p, "fine", engine.Limits{}).Verdict())
}

func TestCrashOnceIsRetriedAlone(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Processes = 1 })
	inspect(t, p, "fine", engine.Limits{})
	require.Equal(t, threat.Clean, inspect(t, p, "crash-unless-alone", engine.Limits{}).Verdict())
	require.EqualValues(t, 1, p.Stats().Crashes)
}

func TestWorkerKilledInTheMiddle(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Processes = 1 })
	done := make(chan *engine.Result, 1)
	f := file(t, "slow 700")
	go func() {
		r, _ := p.Inspect(context.Background(), f, engine.Limits{})
		done <- r
	}()
	require.Eventually(t, func() bool { return p.Stats().Busy == 1 }, 5*time.Second, time.Millisecond)
	time.Sleep(100 * time.Millisecond)
	require.NoError(t, unix.Kill(p.slots[0].current.Load().pid, unix.SIGKILL))
	r := <-done
	require.NotNil(t, r)
	require.Equal(t, threat.Clean, r.Verdict())
	require.EqualValues(t, 1, p.Stats().Crashes)
}

func TestWorkerKilledWhileIdle(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Processes = 1 })
	old := p.slots[0].current.Load().pid
	require.NoError(t, unix.Kill(old, unix.SIGKILL))
	require.Eventually(t, func() bool {
		w := p.slots[0].current.Load()
		return w != nil && w.pid != old
	}, 5*time.Second, time.Millisecond, "an idle worker is replaced at once")
	require.Equal(t, threat.Clean, inspect(t, p, "fine", engine.Limits{}).Verdict())
	require.Zero(t, p.Stats().Crashes)
}

func TestWatchdogEndsWhatHangs(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	start := time.Now()
	r := inspect(t, p, "hang", engine.Limits{Time: 300 * time.Millisecond})
	require.Less(t, time.Since(start), 5*time.Second)
	require.Equal(t, threat.Partial, r.Verdict())
	require.Equal(t, threat.ReasonEngineTimeout, reason(r))
	require.EqualValues(t, 1, p.Stats().Timeouts)
	require.Equal(t, threat.Clean, inspect(t, p, "fine", engine.Limits{}).Verdict())
}

func TestWhatWasFoundBeforeTheEndCounts(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	r := inspect(t, p, "found-then-hang", engine.Limits{Time: 300 * time.Millisecond})
	require.Equal(t, threat.Malicious, r.Verdict())
	require.Equal(t, threat.ReasonEngineTimeout, reason(r))
}

func TestMemoryLimit(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.MemoryLimit = 64 << 20 })
	r := inspect(t, p, "memory", engine.Limits{})
	require.Equal(t, threat.Suspicious, r.Verdict())
	require.Equal(t, threat.ReasonEngineCrashed, reason(r))
	require.Contains(t, r.Objects[0].Reasons[0].Text, "64 MiB")
}

func TestFaultIsPartial(t *testing.T) {
	t.Parallel()
	r := inspect(t, newPool(t, nil), "fault", engine.Limits{})
	require.Equal(t, threat.Partial, r.Verdict())
	require.Equal(t, []threat.Reason{{Code: threat.ReasonUnreadable, Text: "could not read it all"}}, r.Objects[0].Reasons)
}

func TestLiarsAreKilled(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Args = []string{"fake-liar"}; c.Processes = 1 })
	for _, content := range []string{"other id", "garbage", "unknown verdict", "empty message", "endless"} {
		r := inspect(t, p, content, engine.Limits{Members: 1000})
		require.Equal(t, threat.Suspicious, r.Verdict(), content)
		require.Equal(t, threat.ReasonEngineCrashed, reason(r), content)
	}
	// No object at all is no verdict.
	r := inspect(t, p, "nothing", engine.Limits{})
	require.Equal(t, threat.Error, r.Verdict())
}

// A caller that gives up must neither wait nor leave its answer to the next.
func TestCancelNeverMixesAnswers(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for j := range 25 {
				content := fmt.Sprintf("slow %d", (i+j)%12)
				f, err := os.Open(writeTemp(t, content))
				require.NoError(t, err)
				ctx, cancel := context.WithTimeout(context.Background(), time.Duration(j%5*6+1)*time.Millisecond)
				r, err := p.Inspect(ctx, f, engine.Limits{})
				f.Close() // at once: the pool must not need it any more
				cancel()
				if err == nil {
					require.Equal(t, threat.Hash(sha256.Sum256([]byte(content))), r.Objects[0].Hash)
				} else {
					require.ErrorIs(t, err, context.DeadlineExceeded)
				}
			}
		})
	}
	wg.Wait()
	require.Zero(t, p.Stats().Crashes)
	require.Zero(t, p.Stats().Restarts, "short work is finished, not killed")
}

func writeTemp(t testing.TB, content string) string {
	f, err := os.CreateTemp(t.TempDir(), "")
	require.NoError(t, err)
	defer f.Close()
	_, err = f.WriteString(content)
	require.NoError(t, err)
	return f.Name()
}

func TestCancelEndsWhatHangs(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Processes = 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	start := time.Now()
	_, err := p.Inspect(ctx, file(t, "hang"), engine.Limits{})
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Less(t, time.Since(start), time.Second)
	require.Equal(t, threat.Clean, inspect(t, p, "fine", engine.Limits{}).Verdict())
	require.Less(t, time.Since(start), drain+5*time.Second)
}

func TestDescriptorsThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	closed := file(t, "fine")
	closed.Close()
	_, err := p.Inspect(context.Background(), closed, engine.Limits{})
	require.ErrorContains(t, err, "closed")

	fifo := filepath.Join(t.TempDir(), "fifo")
	require.NoError(t, unix.Mkfifo(fifo, 0o600))
	for _, path := range []string{t.TempDir(), fifo} {
		f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
		require.NoError(t, err)
		defer f.Close()
		r, err := p.Inspect(context.Background(), f, engine.Limits{})
		require.NoError(t, err)
		require.Equal(t, threat.Error, r.Verdict())
	}
}

// A worker that was taken over must not be able to change the file.
func TestWritableDescriptorsStayHere(t *testing.T) {
	t.Parallel()
	path := writeTemp(t, "write")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	r, err := newPool(t, nil).Inspect(context.Background(), f, engine.Limits{})
	require.NoError(t, err)
	require.Equal(t, threat.Clean, r.Verdict())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "write", string(content))
}

func TestWithoutSignatures(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Bundle = "" })
	r := inspect(t, p, "fine", engine.Limits{})
	require.Equal(t, threat.Partial, r.Verdict())
	require.Equal(t, threat.ReasonNoSignatures, reason(r))
	require.NoError(t, p.Swap(context.Background(), bundleDir(t, "rules"), 1))
	require.Equal(t, threat.Clean, inspect(t, p, "fine", engine.Limits{}).Verdict())
}

func TestSwapWithoutGap(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	var stop atomic.Bool
	var wg sync.WaitGroup
	var most atomic.Int64
	for range 4 {
		wg.Go(func() {
			f := file(t, "fine")
			last := threat.Epoch(0)
			for !stop.Load() {
				r, err := p.Inspect(context.Background(), f, engine.Limits{})
				require.NoError(t, err)
				require.Equal(t, threat.Clean, r.Verdict())
				require.GreaterOrEqual(t, r.Epoch+1, last, "two workers may differ by one epoch, not more")
				last = max(last, r.Epoch)
				most.Store(max(most.Load(), p.live.Load()))
			}
		})
	}
	for epoch := threat.Epoch(6); epoch < 10; epoch++ {
		require.NoError(t, p.Swap(context.Background(), bundleDir(t, "rules"), epoch))
		require.Equal(t, epoch, p.Stats().Epoch)
		require.Equal(t, epoch, inspect(t, p, "fine", engine.Limits{}).Epoch)
	}
	stop.Store(true)
	wg.Wait()
	require.Zero(t, p.Stats().Crashes)
	require.LessOrEqual(t, most.Load(), int64(3), "one worker more than usual at most")
}

func TestSwapThatFailsChangesNothing(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	require.ErrorContains(t, p.Swap(context.Background(), bundleDir(t, "bad rules"), 6), "these rules are bad")
	require.ErrorContains(t, p.Swap(context.Background(), bundleDir(t, "crash"), 6), "exit status 9")
	require.ErrorContains(t, p.Swap(context.Background(), t.TempDir(), 6), "opening compiled signatures")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, p.Swap(ctx, bundleDir(t, "rules"), 6), context.Canceled)
	for range 4 {
		require.EqualValues(t, 5, inspect(t, p, "fine", engine.Limits{}).Epoch)
	}
	require.EqualValues(t, 5, p.Stats().Epoch)
}

func TestStartThatFails(t *testing.T) {
	t.Parallel()
	base := Config{Program: os.Args[0], Args: []string{"fake-worker"}, Bundle: bundleDir(t, "rules")}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no program":    {func(c *Config) { c.Program = "/nowhere/lazaret-engine" }, "opening the engine program: open /nowhere/lazaret-engine"},
		"no executable": {func(c *Config) { c.Program = writeTemp(t, "x") }, "is not an executable file"},
		"dies":          {func(c *Config) { c.Args = []string{"fake-dead"} }, "I cannot start"},
		"bad rules":     {func(c *Config) { c.Bundle = bundleDir(t, "bad") }, "these rules are bad"},
		"no manifest":   {func(c *Config) { c.Bundle = t.TempDir() }, "manifest.json"},
	} {
		c := base
		test.change(&c)
		_, err := New(c)
		require.ErrorContains(t, err, test.want, name)
	}
}

func TestLazyPoolAnswersWhenItCannotStart(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Lazy = true; c.Processes = 1; c.Args = []string{"fake-dead"} })
	require.Zero(t, p.Stats().Running)
	for range 3 {
		r := inspect(t, p, "fine", engine.Limits{})
		require.Equal(t, threat.Error, r.Verdict())
		require.Equal(t, threat.ReasonEngineUnavailable, reason(r))
		require.Contains(t, r.Objects[0].Reasons[0].Text, "I cannot start")
	}
	require.Contains(t, p.Stats().LastError, "I cannot start")
}

func TestLazyPoolStartsWithTheFirstFile(t *testing.T) {
	t.Parallel()
	p := newPool(t, func(c *Config) { c.Lazy = true })
	require.Zero(t, p.Stats().Running)
	inspect(t, p, "fine", engine.Limits{})
	require.Equal(t, 1, p.Stats().Running)
	require.NoError(t, p.Swap(context.Background(), bundleDir(t, "rules"), 6))
	require.EqualValues(t, 6, inspect(t, p, "fine", engine.Limits{}).Epoch)
}

func TestClose(t *testing.T) {
	t.Parallel()
	p := newPool(t, nil)
	var pids []int
	for _, s := range p.slots {
		pids = append(pids, s.current.Load().pid)
	}
	done := make(chan error, 1)
	f := file(t, "hang")
	go func() { _, err := p.Inspect(context.Background(), f, engine.Limits{}); done <- err }()
	require.Eventually(t, func() bool { return p.Stats().Busy == 1 }, 5*time.Second, time.Millisecond)
	require.NoError(t, p.Close())
	require.Zero(t, p.live.Load())
	require.ErrorIs(t, <-done, ErrClosed)
	_, err := p.Inspect(context.Background(), file(t, "fine"), engine.Limits{})
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, p.Swap(context.Background(), bundleDir(t, "rules"), 6), ErrClosed)
	for _, pid := range pids {
		require.NoDirExists(t, "/proc/"+strconv.Itoa(pid))
	}
}

// Workers end with the service, however it ends.
func TestWorkersDieWithTheParent(t *testing.T) {
	t.Parallel()
	cmd := exec.Command(os.Args[0], "fake-parent", bundleDir(t, "rules"), writeTemp(t, "hang"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var pids []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		pids = append(pids, lines.Text())
	}
	require.Len(t, pids, 2)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait() // it was killed
	for _, pid := range pids {
		require.Eventually(t, func() bool { return !alive(pid) }, 5*time.Second, 5*time.Millisecond)
	}
}

func alive(pid string) bool {
	b, err := os.ReadFile("/proc/" + pid + "/stat")
	return err == nil && !strings.Contains(string(b), ") Z ")
}

func TestDescriptorsDoNotLeak(t *testing.T) {
	count := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		require.NoError(t, err)
		return len(entries)
	}
	before := count()
	p, err := New(Config{Program: os.Args[0], Args: []string{"fake-worker"}, Bundle: bundleDir(t, "rules"), Processes: 2})
	require.NoError(t, err)
	f := file(t, "crash")
	for range 3 {
		_, err = p.Inspect(context.Background(), f, engine.Limits{})
		require.NoError(t, err)
		require.NoError(t, p.Swap(context.Background(), bundleDir(t, "rules"), 2))
	}
	require.NoError(t, p.Close())
	f.Close()
	require.LessOrEqual(t, count(), before+1, "the poller's descriptor may be new")
}

func BenchmarkInspect(b *testing.B) {
	p := newPool(b, nil)
	f := file(b, "fine")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Inspect(context.Background(), f, engine.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}
