package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

// lazaret is the product, used as a person would: through its program.
type lazaret struct {
	program, config, log string
	daemon               *exec.Cmd
}

func startLazaret(ctx context.Context, dir string, rt *containerdtest.Runtime) (*lazaret, error) {
	program, err := filepath.Abs("bin/lazaret")
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(program); err != nil {
		return nil, fmt.Errorf("run make build first: %w", err)
	}
	l := &lazaret{program: program, config: filepath.Join(dir, "lazaret.yaml"), log: filepath.Join(dir, "lazaret.log")}
	text := fmt.Sprintf(`node: demo-host
stateDir: %s
runDir: %s
listen: "off"
# Only the file system that holds the demonstration's containers is protected.
protect: {containers: "off", paths: [%q]}
runtimes: {containerd: %q, docker: "off", nri: "off"}
`, filepath.Join(dir, "state"), filepath.Join(dir, "run"), rt.Mount(), rt.Socket)
	if err := os.WriteFile(l.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	log, err := os.Create(l.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	l.daemon = exec.Command(program, "--config", l.config, "up")
	l.daemon.Stdout, l.daemon.Stderr = log, log
	l.daemon.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
	if err := l.daemon.Start(); err != nil {
		return nil, err
	}
	if err := l.await(ctx, "protection", func() bool {
		var s api.Status
		return l.json(ctx, &s, "status") == nil && len(s.Nodes) == 1 && s.Nodes[0].Report.Epoch > 0 && len(s.Nodes[0].Report.Protected) > 0
	}); err != nil {
		b, _ := os.ReadFile(l.log)
		return nil, errors.Join(err, l.stop(), fmt.Errorf("its log:\n%s", b))
	}
	return l, nil
}

func (l *lazaret) stop() error {
	if err := l.daemon.Process.Signal(unix.SIGTERM); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- l.daemon.Wait() }()
	select {
	case err := <-done:
		return err
	case <-time.After(30 * time.Second):
		_ = l.daemon.Process.Kill() // it may have ended meanwhile
		return errors.New("lazaret did not stop within 30 seconds")
	}
}

// run runs a command and returns what it printed and its exit code.
func (l *lazaret) run(ctx context.Context, args ...string) (stdout, stderr string, code int, err error) {
	var out, errOut bytes.Buffer
	c := exec.CommandContext(ctx, l.program, append([]string{"--config", l.config}, args...)...)
	c.Stdout, c.Stderr = &out, &errOut
	err = c.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = nil
	}
	return out.String(), errOut.String(), c.ProcessState.ExitCode(), err
}

// show runs a command in front of the audience.
func (l *lazaret) show(ctx context.Context, args ...string) error {
	fmt.Printf("\n  $ lazaret %s\n", quoted(args))
	out, errOut, code, err := l.run(ctx, args...)
	for line := range strings.Lines(out + errOut) {
		fmt.Print("    " + line)
	}
	if err == nil && code != 0 {
		err = fmt.Errorf("lazaret %s ended with exit code %d", args[0], code)
	}
	return err
}

func quoted(args []string) string {
	out := make([]string, len(args))
	for i, a := range args {
		if out[i] = a; strings.ContainsAny(a, " '\"") {
			out[i] = fmt.Sprintf("%q", a)
		}
	}
	return strings.Join(out, " ")
}

// json runs a command with JSON output.
func (l *lazaret) json(ctx context.Context, to any, args ...string) error {
	out, errOut, code, err := l.run(ctx, append([]string{"-o", "json"}, args...)...)
	if err != nil {
		return err
	}
	if code != 0 {
		return errors.New(strings.TrimSpace(errOut))
	}
	return json.Unmarshal([]byte(out), to)
}

// await polls until ok, for at most half a minute.
func (l *lazaret) await(ctx context.Context, what string, ok func() bool) error {
	end := time.Now().Add(30 * time.Second)
	for !ok() {
		if ctx.Err() != nil || time.Now().After(end) {
			return fmt.Errorf("waiting for %s took too long", what)
		}
		time.Sleep(100 * time.Millisecond)
	}
	return nil
}

func (l *lazaret) awaitWorkload(ctx context.Context, name string) error {
	return l.await(ctx, "container "+name, func() bool {
		var list []threat.Workload
		if l.json(ctx, &list, "workload", "list") != nil {
			return false
		}
		for _, w := range list {
			if w.Name == name {
				return true
			}
		}
		return false
	})
}
