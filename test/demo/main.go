// Demo shows the main job on real parts: a private container runtime, malware
// that a container writes and cannot use, and a person who decides. It cleans
// up after itself and exits with 0 only if everything happened as it should.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

// limit bounds the whole demonstration.
const limit = 3 * time.Minute

// inside marks the process that runs in its own mount namespace.
const inside = "LAZARET_DEMO_INSIDE"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	if err := start(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo: "+err.Error())
		stop()
		os.Exit(1)
	}
}

// start enters a mount namespace of its own, so that nothing the demonstration
// mounts is seen by the machine.
func start(ctx context.Context) error {
	if os.Geteuid() != 0 {
		return errors.New("the demonstration needs root: sudo make demo")
	}
	if os.Getenv(inside) == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		c := exec.CommandContext(ctx, "unshare", "--mount", "--propagation", "private", self)
		c.Env = append(os.Environ(), inside+"=1")
		c.Stdin, c.Stdout, c.Stderr = os.Stdin, os.Stdout, os.Stderr
		c.Cancel = func() error { return c.Process.Signal(unix.SIGTERM) }
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGTERM}
		if err := c.Run(); err != nil {
			return errors.New("it did not go as it should; see above")
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return run(ctx)
}

func run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "lzdemo")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()

	title("A private containerd on a file system of its own")
	runtimeDir := filepath.Join(dir, "c")
	if err := os.Mkdir(runtimeDir, 0o700); err != nil {
		return err
	}
	rt, err := containerdtest.Start(ctx, containerdtest.Config{Dir: runtimeDir})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rt.Close()) }()
	infected, err := layer()
	if err != nil {
		return err
	}
	image, err := rt.Image(ctx, "localhost/demo/shop:1", infected)
	if err != nil {
		return err
	}
	note("image %s, %d layers", image.Name, len(image.Layers))

	title("Lazaret starts: one command, one service for the whole host")
	l, err := startLazaret(ctx, dir, rt)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.stop()) }()
	web, err := rt.Run(ctx, "shop-1", image.Name)
	if err != nil {
		return err
	}
	if err := l.awaitWorkload(ctx, "shop-1"); err != nil {
		return err
	}
	if err := l.show(ctx, "status"); err != nil {
		return err
	}
	s := story{ctx: ctx, lazaret: l, container: web, image: image.Name}
	return s.tell()
}
