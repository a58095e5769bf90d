package main

import (
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// onaccess is ClamAV's on-access scanner on a file system of its own. Its
// processes are children of one shell, so that they can be measured together.
type onaccess struct {
	mnt     string
	pid     int
	command string
	setup   string
}

// clamonacc starts clamd with one small hash signature, so that its engine
// costs as little as possible, and clamonacc with prevention.
func (l *lab) clamonacc(ctx context.Context) (*onaccess, error) {
	mnt, err := l.fileSystem(ctx, "clamonacc", 1<<30)
	if err != nil {
		return nil, err
	}
	dir, err := l.dir("clamav")
	if err != nil {
		return nil, err
	}
	clam, err := user.Lookup("clamav") // the user of the Debian package
	if err != nil {
		return nil, fmt.Errorf("preparing clamd: %w", err)
	}
	uid, err := strconv.Atoi(clam.Uid)
	if err != nil {
		return nil, fmt.Errorf("preparing clamd: %w", err)
	}
	db := filepath.Join(dir, "db")
	conf := filepath.Join(dir, "clamd.conf")
	socket := filepath.Join(dir, "clamd.sock")
	text := fmt.Sprintf(`DatabaseDirectory %s
LocalSocket %s
Foreground yes
User clamav
MaxThreads %d
OnAccessIncludePath %s
OnAccessPrevention yes
OnAccessExcludeUname clamav
OnAccessMaxThreads %d
`, db, socket, max(l.cores, 2), mnt, max(l.cores, 2))
	err = errors.Join(os.Mkdir(db, 0o755), os.Chmod(l.work, 0o755), os.Chown(dir, uid, -1),
		os.WriteFile(filepath.Join(db, "bench.hdb"), fmt.Appendf(nil, "%x:%d:Bench.Test\n", md5.Sum(infected), len(infected)), 0o644),
		os.WriteFile(conf, []byte(text), 0o644))
	if err != nil {
		return nil, fmt.Errorf("preparing clamd: %w", err)
	}
	script := fmt.Sprintf("clamd --config-file=%[1]s & clamonacc --foreground --fdpass --wait --config-file=%[1]s --log=%[2]s/onacc.log & wait", conf, dir)
	c := exec.Command("sh", "-c", script)
	var said tail
	c.Stdout, c.Stderr = &said, &said
	c.SysProcAttr = &unix.SysProcAttr{Setpgid: true}
	ended, begun := make(chan error, 1), make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := c.Start()
		begun <- err
		if err == nil {
			ended <- c.Wait()
		}
	}()
	if err := <-begun; err != nil {
		return nil, fmt.Errorf("starting clamonacc: %w", err)
	}
	l.later(func() error {
		err := unix.Kill(-c.Process.Pid, unix.SIGKILL)
		<-ended
		return err
	})
	o := &onaccess{
		mnt: mnt, pid: c.Process.Pid, command: "clamonacc --fdpass; tar -xf source.tar",
		setup: "clamd with one hash signature, clamonacc --fdpass, OnAccessIncludePath on a file system of its own (prevention does not work with OnAccessMountPath), OnAccessPrevention yes, as many threads as cores",
	}
	return o, o.works(ctx, dir, &said)
}

// infected is what the one signature of clamd names; it is harmless.
var infected = []byte("a harmless file that the benchmark calls infected\n")

// works waits until clamonacc denies an infected file, so that what is measured
// is protection.
func (o *onaccess) works(ctx context.Context, dir string, said *tail) error {
	for n := range 200 {
		path := filepath.Join(o.mnt, fmt.Sprintf("infected-%d", n))
		if err := os.WriteFile(path, infected, 0o644); err != nil {
			return fmt.Errorf("trying clamonacc: %w", err)
		}
		if _, err := os.ReadFile(path); errors.Is(err, unix.EPERM) {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(200 * time.Millisecond):
		}
	}
	log, err := os.ReadFile(filepath.Join(dir, "onacc.log"))
	return errors.Join(fmt.Errorf("clamonacc denied nothing: %s %s", ending(said.b), ending(log)), err)
}

// ending is the end of a log for an error.
func ending(b []byte) string { return strings.TrimSpace(string(b[max(0, len(b)-400):])) }
