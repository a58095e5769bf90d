package containerdtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
)

// Image builds an image from busybox plus the given layers, one image layer
// each, imports it and returns it. Name is a full reference such as
// "localhost/demo/web:1".
func (rt *Runtime) Image(ctx context.Context, name string, layers ...Layer) (Image, error) {
	base, err := Busybox()
	if err != nil {
		return Image{}, err
	}
	f, err := os.CreateTemp(filepath.Join(rt.dir, "tmp"), "image-*.tar")
	if err != nil {
		return Image{}, fmt.Errorf("creating an image archive: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	image, err := WriteImage(f, name, append([]Layer{base}, layers...)...)
	if err = errors.Join(err, f.Close()); err != nil {
		return Image{}, err
	}
	_, err = rt.Ctr(ctx, "image", "import", "--all-platforms", f.Name())
	return image, err
}

// Spec describes a container to run.
type Spec struct {
	ID    string
	Image string
	// Args of the process; empty means the image's command (sleep for a day).
	Args []string
	// Binds are bind mounts, host path to path inside.
	Binds map[string]string
	// Labels of the container as containerd keeps them.
	Labels map[string]string
	// ReadOnly makes the root file system read-only.
	ReadOnly bool
	// Flags are further flags of "ctr run".
	Flags []string
}

// Container is a running container.
type Container struct {
	ID  string
	PID int // of its first process, in the host's pid namespace

	rt    *Runtime
	execs atomic.Int64
}

// Run starts a container with the given id, image and arguments.
func (rt *Runtime) Run(ctx context.Context, id, image string, args ...string) (*Container, error) {
	return rt.RunSpec(ctx, Spec{ID: id, Image: image, Args: args})
}

// RunSpec starts a container and returns once its process was started.
func (rt *Runtime) RunSpec(ctx context.Context, s Spec) (*Container, error) {
	pidFile := filepath.Join(rt.dir, "tmp", s.ID+".pid")
	args := []string{"run", "--detach", "--pid-file", pidFile, "--log-uri", "file://" + rt.output(s.ID)}
	for from, to := range s.Binds {
		args = append(args, "--mount", "type=bind,src="+from+",dst="+to+",options=rbind:rw")
	}
	for k, v := range s.Labels {
		args = append(args, "--label", k+"="+v)
	}
	if s.ReadOnly {
		args = append(args, "--read-only")
	}
	args = append(args, s.Flags...)
	args = append(args, s.Image, s.ID)
	if _, err := rt.Ctr(ctx, append(args, s.Args...)...); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(pidFile)
	if err != nil {
		return nil, fmt.Errorf("reading the pid of container %s: %w", s.ID, err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return nil, fmt.Errorf("reading the pid of container %s: %w", s.ID, err)
	}
	return &Container{ID: s.ID, PID: pid, rt: rt}, nil
}

func (rt *Runtime) output(id string) string { return filepath.Join(rt.dir, "log", id+".log") }

// Ctr runs containerd's own client in the runtime's namespaces and returns
// its standard output. An error contains its standard error.
func (rt *Runtime) Ctr(ctx context.Context, args ...string) (string, error) {
	stdout, stderr, err := rt.ctr(ctx, args...)
	if err != nil {
		return stdout, fmt.Errorf("running ctr %s: %w: %s", args[0], err, strings.TrimSpace(stderr))
	}
	return stdout, nil
}

func (rt *Runtime) ctr(ctx context.Context, args ...string) (string, string, error) {
	full := append([]string{"--target", strconv.Itoa(rt.PID), "--mount", "--", "ctr", "--address", rt.Socket, "--namespace", rt.Namespace}, args...)
	cmd := exec.CommandContext(ctx, "nsenter", full...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	return stdout.String(), stderr.String(), err
}

// Result is what a command inside a container printed and its exit status.
type Result struct {
	Stdout, Stderr string
	Code           int
}

// Exec runs a command inside the container and waits for it. A command that
// ran and failed is no error: look at Code. A command that could not be
// started (for instance because its file is denied) has Code 126 or 127, or
// an error from the runtime.
func (c *Container) Exec(ctx context.Context, args ...string) (Result, error) {
	id := "e" + strconv.FormatInt(c.execs.Add(1), 10)
	stdout, stderr, err := c.rt.ctr(ctx, append([]string{"task", "exec", "--exec-id", id, c.ID}, args...)...)
	res := Result{Stdout: stdout, Stderr: stderr}
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() >= 0 && !strings.Contains(stderr, "ctr: ") {
		res.Code, err = exit.ExitCode(), nil
	}
	if err != nil {
		return res, fmt.Errorf("running %s in container %s: %w: %s", args[0], c.ID, err, strings.TrimSpace(stderr))
	}
	return res, nil
}

// Sh runs a shell command line inside the container.
func (c *Container) Sh(ctx context.Context, script string) (Result, error) {
	return c.Exec(ctx, "/bin/sh", "-c", script)
}

// Output returns what the container's first process has printed so far.
func (c *Container) Output() (string, error) {
	b, err := os.ReadFile(c.rt.output(c.ID))
	if err != nil {
		return "", fmt.Errorf("reading the output of container %s: %w", c.ID, err)
	}
	return string(b), nil
}

// Stop kills the container and removes it with its writable layer.
func (c *Container) Stop(ctx context.Context) error {
	if _, err := c.rt.Ctr(ctx, "task", "rm", "--force", c.ID); err != nil {
		return err
	}
	_, err := c.rt.Ctr(ctx, "container", "rm", c.ID)
	return err
}
