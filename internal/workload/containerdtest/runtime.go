// Package containerdtest runs a real, private containerd for privileged tests
// and for the demonstration: Debian's containerd, runc and busybox-static on a
// file system of their own (a loop device), with hand-made images, in a private
// mount namespace. Nothing of the machine's own container runtime is touched.
//
// A small shell process owns everything that must not outlive the caller. It
// holds the read end of a pipe; when the pipe closes, because Close was called
// or because the caller died in whatever way, it ends the containers, the
// shims and containerd by process id, unmounts and removes the cgroups.
package containerdtest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Config says where the private runtime lives.
type Config struct {
	// Dir is an existing, empty directory with a short absolute path (the socket
	// path must stay below 108 bytes). The caller removes it after Close.
	Dir string
	// FileSystem of the loop device: "ext4" (default) or "xfs".
	FileSystem string
	// Size of the file system in bytes, sparse; default 1 GiB.
	Size int64
	// Namespace is the containerd namespace; the default is unique so that
	// several runtimes on one machine do not share cgroups.
	Namespace string
}

// Runtime is a running private containerd. Its methods are safe for
// concurrent use as long as container ids differ.
type Runtime struct {
	// Socket is the path of containerd's gRPC socket.
	Socket string
	// Namespace is the containerd namespace all containers are in.
	Namespace string
	// PID of containerd.
	PID int

	dir   string
	guard *exec.Cmd
	hold  *os.File // write end of the guard's pipe
}

// required are the programs that Start runs, with the Debian package of each.
var required = map[string]string{
	"containerd": "containerd", "ctr": "containerd", "runc": "runc", "busybox": "busybox-static",
	"mount": "mount", "unshare": "util-linux", "nsenter": "util-linux", "losetup": "mount",
}

// Missing returns the Debian packages that must be installed before Start can
// work, without duplicates.
func Missing(fileSystem string) []string {
	need := map[string]string{"mkfs.ext4": "e2fsprogs"}
	if fileSystem == "xfs" {
		need = map[string]string{"mkfs.xfs": "xfsprogs"}
	}
	for program, pkg := range required {
		need[program] = pkg
	}
	seen, out := map[string]bool{}, []string{}
	for program, pkg := range need {
		if _, err := exec.LookPath(program); err != nil && !seen[pkg] {
			seen[pkg] = true
			out = append(out, pkg)
		}
	}
	return out
}

// Start makes the file system, mounts it at Dir/fs in the caller's mount
// namespace (so that it can be marked and read from there), starts containerd
// and waits until it answers. It needs root. The caller calls Close.
func Start(ctx context.Context, cfg Config) (*Runtime, error) {
	cfg, err := complete(cfg)
	if err != nil {
		return nil, err
	}
	rt := &Runtime{
		Socket: filepath.Join(cfg.Dir, "c.sock"), Namespace: cfg.Namespace, dir: cfg.Dir,
	}
	if err := rt.prepare(ctx, cfg); err != nil {
		return nil, err
	}
	if err := rt.launch(); err != nil {
		return nil, err
	}
	if err := rt.wait(ctx); err != nil {
		return nil, errors.Join(err, rt.Close())
	}
	return rt, nil
}

func complete(cfg Config) (Config, error) {
	if os.Geteuid() != 0 {
		return cfg, errors.New("starting a private containerd: root is needed")
	}
	if !filepath.IsAbs(cfg.Dir) || len(cfg.Dir) > 60 {
		return cfg, fmt.Errorf("starting a private containerd in %q: want an absolute path of at most 60 bytes", cfg.Dir)
	}
	if cfg.FileSystem == "" {
		cfg.FileSystem = "ext4"
	}
	if cfg.FileSystem != "ext4" && cfg.FileSystem != "xfs" {
		return cfg, fmt.Errorf("starting a private containerd: file system %q is neither ext4 nor xfs", cfg.FileSystem)
	}
	if cfg.Size <= 0 {
		cfg.Size = 1 << 30
	}
	if cfg.Namespace == "" {
		b := make([]byte, 6)
		if _, err := rand.Read(b); err != nil {
			return cfg, fmt.Errorf("choosing a namespace: %w", err)
		}
		cfg.Namespace = "lz" + hex.EncodeToString(b)
	}
	if missing := Missing(cfg.FileSystem); len(missing) > 0 {
		return cfg, fmt.Errorf("starting a private containerd: install %s", strings.Join(missing, " "))
	}
	return cfg, nil
}

// prepare writes the disk image, containerd's configuration and the directories.
func (rt *Runtime) prepare(ctx context.Context, cfg Config) error {
	for _, d := range []string{"fs", "state", "log", "tmp"} {
		if err := os.MkdirAll(filepath.Join(rt.dir, d), 0o711); err != nil {
			return fmt.Errorf("making %s: %w", d, err)
		}
	}
	// Shims put their sockets below this fixed path; containerd gets a private
	// tmpfs on it, but the directory itself must exist.
	if err := os.MkdirAll("/run/containerd", 0o711); err != nil {
		return fmt.Errorf("making the shims' directory: %w", err)
	}
	disk := filepath.Join(rt.dir, "disk.img")
	f, err := os.Create(disk)
	if err != nil {
		return fmt.Errorf("creating the disk image: %w", err)
	}
	if err := errors.Join(f.Truncate(cfg.Size), f.Close()); err != nil {
		return fmt.Errorf("sizing the disk image: %w", err)
	}
	if out, err := exec.CommandContext(ctx, "mkfs."+cfg.FileSystem, "-q", disk).CombinedOutput(); err != nil {
		return fmt.Errorf("making a file system: %w: %s", err, out)
	}
	config := fmt.Sprintf(containerdConfig, rt.Root(), filepath.Join(rt.dir, "state"), rt.Socket)
	if err := os.WriteFile(filepath.Join(rt.dir, "config.toml"), []byte(config), 0o600); err != nil {
		return fmt.Errorf("writing containerd's configuration: %w", err)
	}
	return nil
}

const containerdConfig = `version = 2
root = %q
state = %q
disabled_plugins = [
  "io.containerd.grpc.v1.cri", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt",
]
[grpc]
  address = %q
`

// launch starts the guard, which mounts and starts containerd.
func (rt *Runtime) launch() error {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("making the guard's pipe: %w", err)
	}
	defer func() { _ = r.Close() }()
	log, err := os.Create(filepath.Join(rt.dir, "log", "containerd.log"))
	if err != nil {
		return errors.Join(fmt.Errorf("creating containerd's log: %w", err), w.Close())
	}
	defer func() { _ = log.Close() }()
	rt.guard = exec.Command("/bin/sh", "-c", guardScript, "lazaret-guard", rt.dir, rt.Namespace)
	rt.guard.ExtraFiles = []*os.File{r}
	rt.guard.Stdout, rt.guard.Stderr = log, log
	// A group of its own: Ctrl-C must reach the caller, not the guard.
	rt.guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	rt.hold = w
	if err := rt.guard.Start(); err != nil {
		return errors.Join(fmt.Errorf("starting the guard: %w", err), w.Close())
	}
	return nil
}

// wait returns when containerd accepts connections.
func (rt *Runtime) wait(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	for {
		c, err := net.Dial("unix", rt.Socket)
		if err == nil {
			_ = c.Close()
			return rt.readPID()
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for containerd: %w; its log ends with:\n%s", err, rt.Log(2000))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func (rt *Runtime) readPID() error {
	b, err := os.ReadFile(filepath.Join(rt.dir, "containerd.pid"))
	if err != nil {
		return fmt.Errorf("reading containerd's pid: %w", err)
	}
	rt.PID, err = strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return fmt.Errorf("reading containerd's pid: %w", err)
	}
	return nil
}

// Root is containerd's root directory; image layers and writable layers are
// below it, on the loop file system.
func (rt *Runtime) Root() string { return filepath.Join(rt.Mount(), "root") }

// Mount is the mount point of the loop file system.
func (rt *Runtime) Mount() string { return filepath.Join(rt.dir, "fs") }

// Log returns the last n bytes of containerd's log.
func (rt *Runtime) Log(n int) string {
	b, err := os.ReadFile(filepath.Join(rt.dir, "log", "containerd.log"))
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-n):])
}

// Close ends all containers and containerd, unmounts the file system and
// waits until that is done. Dir itself stays. It may be called twice.
func (rt *Runtime) Close() error {
	if rt.hold == nil {
		return nil
	}
	err := rt.hold.Close()
	rt.hold = nil
	if werr := rt.guard.Wait(); werr != nil {
		err = errors.Join(err, fmt.Errorf("cleaning up the private containerd: %w; the log ends with:\n%s", werr, rt.Log(1000)))
	}
	return err
}
