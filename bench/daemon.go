package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
)

// daemon is a `lazaret up` with a state of its own.
type daemon struct {
	dir    string
	config string
	bin    string
	cmd    *exec.Cmd
	ended  chan error
}

// daemon starts Lazaret with its defaults, protecting the file systems that
// hold the given paths and nothing else.
func (l *lab) daemon(ctx context.Context, protect ...string) (*daemon, error) {
	dir, err := l.dir("daemon")
	if err != nil {
		return nil, err
	}
	d := &daemon{dir: dir, config: filepath.Join(dir, "lazaret.yaml"), bin: l.bin}
	quoted, err := json.Marshal(protect) // JSON is YAML
	if err != nil {
		return nil, err
	}
	text := fmt.Sprintf(`stateDir: %q
runDir: %q
node: bench
listen: "off"
protect: {containers: "off", paths: %s}
runtimes: {containerd: "off", docker: "off", nri: "off"}
`, filepath.Join(dir, "state"), filepath.Join(dir, "run"), quoted)
	if err := os.WriteFile(d.config, []byte(text), 0o600); err != nil {
		return nil, fmt.Errorf("configuring Lazaret: %w", err)
	}
	l.later(d.stop)
	return d, d.start(ctx, len(protect))
}

// start returns when signatures are active and so many paths are protected.
func (d *daemon) start(ctx context.Context, protected int) error {
	log, err := os.OpenFile(filepath.Join(d.dir, "log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("starting Lazaret: %w", err)
	}
	defer log.Close()
	d.cmd = exec.Command(filepath.Join(d.bin, "lazaret"), "--config", d.config, "up")
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.ended = make(chan error, 1)
	begun := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := d.cmd.Start()
		begun <- err
		if err == nil {
			d.ended <- d.cmd.Wait()
		}
	}()
	if err := <-begun; err != nil {
		d.cmd = nil
		return fmt.Errorf("starting Lazaret: %w", err)
	}
	return d.until(ctx, func(r *api.Report) bool { return r.Epoch > 0 && len(r.Protected) >= protected })
}

// until waits for the node to report what is wanted.
func (d *daemon) until(ctx context.Context, ready func(*api.Report) bool) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	for {
		r, err := d.report(ctx)
		if err == nil && ready(r) {
			return nil
		}
		select {
		case end := <-d.ended:
			d.cmd = nil
			return fmt.Errorf("waiting for Lazaret: it ended: %w: %s", end, d.log())
		case <-ctx.Done():
			return fmt.Errorf("waiting for Lazaret: %w: %s", errors.Join(context.Cause(ctx), err), d.log())
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (d *daemon) report(ctx context.Context) (*api.Report, error) {
	out, err := d.lazaret(ctx, "node", "show", "bench", "-o", "json")
	if err != nil {
		return nil, err
	}
	var n api.Node
	if err := json.Unmarshal(out, &n); err != nil {
		return nil, fmt.Errorf("reading the node's report: %w", err)
	}
	return &n.Report, nil
}

func (d *daemon) log() string {
	b, err := os.ReadFile(filepath.Join(d.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(b[max(0, len(b)-2000):]))
}

// command is the command line, talking to this daemon.
func (d *daemon) command(ctx context.Context, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, filepath.Join(d.bin, "lazaret"), append([]string{"--config", d.config}, args...)...)
}

func (d *daemon) lazaret(ctx context.Context, args ...string) ([]byte, error) {
	c := d.command(ctx, args...)
	return output(ctx, c.Args[0], c.Args[1:]...)
}

// learn imports signatures and waits until the node uses them.
func (d *daemon) learn(ctx context.Context, paths ...string) (*api.ImportReport, error) {
	out, err := d.lazaret(ctx, append([]string{"signature", "import", "-o", "json"}, paths...)...)
	var r api.ImportReport
	if bad := json.Unmarshal(out, &r); bad != nil {
		return nil, fmt.Errorf("importing signatures: %w", errors.Join(err, bad))
	}
	if r.Bundle == nil {
		return nil, fmt.Errorf("importing signatures: self-test %s", r.SelfTest)
	}
	return &r, d.until(ctx, func(n *api.Report) bool { return n.Epoch == r.Bundle.Epoch })
}

// forget starts the daemon again without what it knows about files.
func (d *daemon) forget(ctx context.Context, protected int) error {
	if err := d.stop(); err != nil {
		return err
	}
	known, err := filepath.Glob(filepath.Join(d.dir, "state/node/scan.db*"))
	if err != nil || len(known) == 0 {
		return fmt.Errorf("finding the verdict cache: %d files: %w", len(known), err)
	}
	for _, path := range known {
		if err := os.Remove(path); err != nil {
			return fmt.Errorf("removing the verdict cache: %w", err)
		}
	}
	return d.start(ctx, protected)
}

// stop ends the daemon in order.
func (d *daemon) stop() error {
	if d.cmd == nil {
		return nil
	}
	cmd := d.cmd
	d.cmd = nil
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		return fmt.Errorf("stopping Lazaret: %w", err)
	}
	select {
	case err := <-d.ended:
		if err != nil {
			return fmt.Errorf("stopping Lazaret: %w: %s", err, d.log())
		}
		return nil
	case <-time.After(20 * time.Second):
		return errors.Join(errors.New("stopping Lazaret: it did not end within 20 s"), cmd.Process.Kill())
	}
}

// idle waits until the daemon's processes have nothing to do.
func (d *daemon) idle(ctx context.Context) error {
	return idle(ctx, d.cmd.Process.Pid)
}
