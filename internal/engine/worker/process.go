package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// process is one running worker. Its methods are called by one goroutine,
// except for kill, rss and what is atomic.
type process struct {
	pid    int
	conn   *net.UnixConn
	cmd    *exec.Cmd
	dead   chan struct{} // closed when the process has ended
	stderr *tail
	statm  *os.File

	epoch  threat.Epoch
	ready  Readiness
	served int // files since the start
	nextID uint64

	overMemory atomic.Bool
}

// readyTimeout bounds how long loading signatures may take.
const readyTimeout = 2 * time.Minute

// start runs a worker with a compiled bundle and waits until it is ready.
func (p *Pool) start(ctx context.Context, b *bundle) (w *process, err error) {
	conn, child, err := socketPair()
	if err != nil {
		return nil, err
	}
	w = &process{conn: conn, dead: make(chan struct{}), stderr: &tail{}, epoch: b.epoch}
	w.cmd = &exec.Cmd{
		Args:       append([]string{p.spawner.path}, p.config.Args...),
		Env:        p.environment(),
		ExtraFiles: []*os.File{child},
		Stderr:     w.stderr,
		WaitDelay:  time.Second,
	}
	err = p.spawner.spawn(ctx, w.cmd)
	child.Close()
	if err != nil {
		conn.Close()
		return nil, err
	}
	w.pid = w.cmd.Process.Pid
	p.live.Add(1)
	go func() {
		_ = w.cmd.Wait() // the state is in cmd.ProcessState
		p.live.Add(-1)
		close(w.dead)
		p.tend() // an idle worker is replaced at once
	}()
	if w.statm, err = os.Open("/proc/" + strconv.Itoa(w.pid) + "/statm"); err == nil {
		err = w.load(ctx, b)
	}
	if err != nil {
		w.stop()
		return nil, errors.Join(err, w.lastWords())
	}
	return w, nil
}

// softMemory is the Go heap above which a worker collects eagerly. It is little
// more than one full buffer: what a worker allocates is mostly buffers, which
// cost nothing to scan, so that collecting early is cheap and keeps the dead
// ones from adding up.
const softMemory = 96 << 20

// environment is all the worker gets of ours.
func (p *Pool) environment() []string {
	return []string{
		"GOGC=50",
		"GOMEMLIMIT=" + strconv.FormatInt(min(p.config.MemoryLimit*3/4, softMemory), 10),
		"GOTRACEBACK=single",
		"GOMAXPROCS=2", // one inspects, one collects
		// Else the runtime keeps files of the control group open to follow its
		// CPU limit.
		"GODEBUG=containermaxprocs=0,updatemaxprocs=0",
		MemoryLimitVariable + "=" + strconv.FormatInt(p.config.MemoryLimit, 10),
		"MALLOC_ARENA_MAX=1",
	}
}

// load sends the signatures and waits for the answer.
func (w *process) load(ctx context.Context, b *bundle) error {
	message, err := json.Marshal(loading{Files: b.names, Epoch: b.epoch})
	if err != nil {
		return fmt.Errorf("describing the signatures: %w", err)
	}
	fds := make([]int, len(b.files))
	for i, f := range b.files {
		fds[i] = int(f.Fd())
	}
	stop := context.AfterFunc(ctx, func() { _ = w.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := w.conn.SetDeadline(time.Now().Add(readyTimeout)); err != nil {
		return fmt.Errorf("setting a deadline: %w", err)
	}
	if _, _, err := w.conn.WriteMsgUnix(append([]byte{msgLoad}, message...), unix.UnixRights(fds...), nil); err != nil {
		return fmt.Errorf("sending signatures to the worker: %w", err)
	}
	buf := make([]byte, maxMessage)
	n, err := w.conn.Read(buf)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return fmt.Errorf("waiting for the worker to load signatures: %w", err)
	case n > 0 && buf[0] == msgFailed:
		return fmt.Errorf("loading signatures in the worker: %s", buf[1:n])
	case n == 0 || buf[0] != msgReady:
		return fmt.Errorf("waiting for the worker to load signatures: %w", errMalformed)
	}
	if err := json.Unmarshal(buf[1:n], &w.ready); err != nil {
		return fmt.Errorf("waiting for the worker to load signatures: %w", err)
	}
	return nil
}

// kill ends the process at once; stop also waits for its end and frees what
// belongs to it.
func (w *process) kill() { _ = w.cmd.Process.Kill() } // an error means it is gone

func (w *process) stop() {
	w.kill()
	<-w.dead
	w.conn.Close()
	if w.statm != nil {
		w.statm.Close()
	}
}

func (w *process) ended() bool {
	select {
	case <-w.dead:
		return true
	default:
		return false
	}
}

// expire lets a process that has closed its socket end by itself, so that its
// exit status tells why.
func (w *process) expire() {
	select {
	case <-w.dead:
	case <-time.After(time.Second):
	}
}

// rss returns the process's resident memory in bytes, 0 if it is gone.
func (w *process) rss() int64 {
	var b [128]byte
	n, err := w.statm.ReadAt(b[:], 0)
	if n == 0 && err != nil {
		return 0
	}
	// Pages: size resident shared … (proc_pid_statm(5)).
	var fields [2]int64
	field := 0
	for _, c := range b[:n] {
		if c == ' ' {
			if field++; field == len(fields) {
				break
			}
			continue
		}
		fields[field] = fields[field]*10 + int64(c-'0')
	}
	return fields[1] * int64(os.Getpagesize())
}

// lastWords explains the death of a process that has ended.
func (w *process) lastWords() error {
	state := "unknown"
	if w.cmd.ProcessState != nil {
		state = w.cmd.ProcessState.String()
		if ws, ok := w.cmd.ProcessState.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			state = "killed by " + unix.SignalName(ws.Signal())
		}
	}
	if text := w.stderr.String(); text != "" {
		return fmt.Errorf("worker ended: %s: %s", state, text)
	}
	return fmt.Errorf("worker ended: %s", state)
}

// tail keeps the first bytes a worker prints, which name the cause of its
// death; the rest of a dump is dropped.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const maxTail = 512

// Write implements io.Writer.
func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, b[:min(len(b), maxTail-len(t.b))]...)
	return len(b), nil
}

// String returns what was kept, printable.
func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.b) == 0 {
		return ""
	}
	return strconv.Quote(string(t.b))
}
