package fanotify

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// OverlayMode says where opens inside containers on overlayfs are seen.
type OverlayMode string

// The overlay modes. Marking both the overlay and its backing file system in
// one group makes the reader wait for itself, so one is chosen.
const (
	// Backing: marks on the file systems below see them (Linux 6.5 and newer).
	Backing OverlayMode = "backing"
	// Overlay: every overlay must be marked (Protect of /proc/PID/root).
	Overlay OverlayMode = "overlay"
	// Unknown: overlayfs could not be tried.
	Unknown OverlayMode = "unknown"
)

// Capabilities are what this kernel and these privileges offer.
type Capabilities struct {
	Permission bool // permission events can be had
	Features
	Ignore    bool // FAN_MARK_IGNORE with EVICTABLE (6.0); otherwise marks pin their inodes
	Remember  bool // clean files can be remembered at all
	Overlay   OverlayMode
	Problem   string // why permission events or overlay probing failed
	condition []threat.Condition
}

// Conditions explains what is missing and what to do about it.
func (c Capabilities) Conditions() []threat.Condition { return c.condition }

// Probe tries what the kernel offers. dir is an existing scratch directory; a
// tmpfs is mounted over it in a private mount name space, so nothing is left
// behind and no real file is marked. The error is about dir, not about what is
// missing.
func Probe(dir string) (Capabilities, error) {
	if fi, err := os.Stat(dir); err != nil {
		return Capabilities{}, fmt.Errorf("probing fanotify: %w", err)
	} else if !fi.IsDir() {
		return Capabilities{}, fmt.Errorf("probing fanotify in %s: %w", dir, unix.ENOTDIR)
	}
	c := Capabilities{Overlay: Unknown}
	g, f, err := Open(GroupConfig{})
	if err != nil {
		c.Problem = err.Error()
		c.missing(ConditionUnavailable, threat.Critical, "Files are not protected on access: "+c.Problem+".",
			"Run as root with CAP_SYS_ADMIN on a kernel with CONFIG_FANOTIFY_ACCESS_PERMISSIONS.")
		return c, nil
	}
	c.Permission, c.Features = true, f
	if err := g.Close(); err != nil {
		return c, err
	}

	if err := onOwnThread(func() error { return c.scratch(dir) }); err != nil {
		c.Problem = err.Error()
	}
	c.explain()
	return c, nil
}

// onOwnThread runs f on a thread that ends with it, because f changes the
// thread for good. That is never the main thread: Go does not end it, and
// /proc/self is what the main thread sees.
func onOwnThread(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: so the thread ends
		if unix.Gettid() != unix.Getpid() {
			done <- f()
			return
		}
		defer runtime.UnlockOSThread()
		done <- onOwnThread(f) // on another thread, as this one is held
	}()
	return <-done
}

func (c *Capabilities) missing(code string, s threat.Severity, text, advice string) {
	c.condition = append(c.condition, threat.Condition{Code: code, Severity: s, Text: text, Advice: advice})
}

func (c *Capabilities) explain() {
	switch c.Overlay {
	case Overlay:
		c.missing(ConditionNoOverlay, threat.Medium,
			"This kernel reports opens inside containers only on each container's overlay; a container is protected from the moment it is discovered.",
			"Use Linux 6.5 or newer.")
	case Unknown:
		c.missing(ConditionNoOverlay, threat.Medium,
			"It could not be found out whether opens inside containers are seen: "+c.Problem+".",
			"Check that overlayfs is available and that the service may mount.")
	}
	if !c.Remember {
		c.missing(ConditionNoIgnore, threat.Low, "The kernel cannot remember clean files; every open costs a round trip.", "Use Linux 6.0 or newer.")
	}
	if !c.FDError {
		c.missing(ConditionNoFDError, threat.Low, "Accesses that the kernel denies for lack of descriptors are counted but not attributed.", "Use Linux 6.13 or newer.")
	}
}

// scratch mounts a tmpfs over dir in a private mount name space and tries marks
// and an overlay there. It changes the calling thread for good.
func (c *Capabilities) scratch(dir string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("leaving the mount name space: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("making mounts private: %w", err)
	}
	if err := unix.Mount("lazaret-probe", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=1m,mode=0700"); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	defer func() { _ = unix.Unmount(dir, unix.MNT_DETACH) }()
	for _, d := range []string{"lower", "upper", "work", "merged"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			return err
		}
	}
	file := filepath.Join(dir, "lower", "file")
	if err := os.WriteFile(file, []byte("probe"), 0o600); err != nil {
		return err
	}
	if err := c.ignore(file); err != nil {
		return err
	}
	return c.overlay(dir)
}

// ignore sets ignore marks on a file that nobody opens.
func (c *Capabilities) ignore(file string) error {
	g, _, err := Open(GroupConfig{})
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	try := func(flags uint) bool {
		return unix.FanotifyMark(g.fd, unix.FAN_MARK_ADD|flags, unix.FAN_OPEN_PERM, unix.AT_FDCWD, file) == nil
	}
	c.Ignore = try(unix.FAN_MARK_IGNORE | unix.FAN_MARK_EVICTABLE)
	c.Remember = c.Ignore || try(unix.FAN_MARK_IGNORED_MASK)
	return nil
}

// overlay opens a file through an overlay and looks whether a mark on the
// backing tmpfs fires. It asks for plain notifications: nobody waits, so a
// mistake here cannot hang anything.
func (c *Capabilities) overlay(dir string) error {
	merged := filepath.Join(dir, "merged")
	opts := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s", filepath.Join(dir, "lower"), filepath.Join(dir, "upper"), filepath.Join(dir, "work"))
	if err := unix.Mount("lazaret-probe", merged, "overlay", 0, opts); err != nil {
		return fmt.Errorf("mounting an overlay: %w", err)
	}
	defer func() { _ = unix.Unmount(merged, unix.MNT_DETACH) }()
	fd, err := unix.FanotifyInit(unix.FAN_CLASS_NOTIF|unix.FAN_CLOEXEC|unix.FAN_NONBLOCK, eventFlags)
	if err != nil {
		return fmt.Errorf("creating a notification group: %w", err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.FanotifyMark(fd, unix.FAN_MARK_ADD|unix.FAN_MARK_FILESYSTEM, unix.FAN_OPEN, unix.AT_FDCWD, dir); err != nil {
		return fmt.Errorf("marking the backing file system: %w", err)
	}
	f, err := os.Open(filepath.Join(merged, "file"))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	buf := make([]byte, 16*headerLen)
	n, err := unix.Read(fd, buf)
	switch {
	case errors.Is(err, unix.EAGAIN):
		c.Overlay = Overlay
		return nil
	case err != nil:
		return fmt.Errorf("reading the notification: %w", err)
	}
	c.Overlay = Backing
	for b := buf[:n]; len(b) > 0; {
		var e Event
		if e, b, err = Parse(b); err != nil {
			return err
		}
		e.Close()
	}
	return nil
}
