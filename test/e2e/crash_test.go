//go:build privileged

package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

// workers returns the pids of the service's sandboxed processes.
func (s *stand) workers(t *testing.T) []int {
	t.Helper()
	var out []int
	for _, pid := range children(s.service(t)) {
		exe, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
		if err == nil && strings.HasSuffix(exe, "/lazaret-engine") {
			out = append(out, pid)
		}
	}
	return out
}

// testKilledWorker: workers that are killed in the middle of a file cost that
// file nothing but time, and the others nothing at all.
func testKilledWorker(t *testing.T, s *stand) {
	// Written where nothing is inspected, so that its first open has to.
	writer, c := s.container(t, imageClean, "off"), s.container(t, imageClean, "deny")
	r, err := writer.Sh(t.Context(), "dd if=/dev/urandom of=/srv/big bs=1M count=100 2>/dev/null")
	require.NoError(t, err)
	require.Zero(t, r.Code, r.Stderr)
	require.Equal(t, "ok", act(t, c, "write:"+eicar(70), "/tmp/bad"))
	before := s.counter(t, "engine_crashes_total")
	start := time.Now()
	opened := make(chan string, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		r, err := c.Exec(ctx, "/bin/actor", "open", "/srv/big")
		opened <- fmt.Sprint(strings.TrimSpace(r.Stdout), err)
	}()
	answer, killed := "", 0
	for answer == "" {
		for _, pid := range s.workers(t) {
			if unix.Kill(pid, unix.SIGKILL) == nil {
				killed++
			}
		}
		select {
		case answer = <-opened:
		case <-time.After(100 * time.Millisecond):
		}
	}
	require.Positive(t, killed)
	require.Contains(t, []string{"ok<nil>", "EPERM<nil>"}, answer)
	require.Less(t, time.Since(start), 2*deadline)
	require.Equal(t, "EPERM", act(t, c, "open", "/tmp/bad"))
	require.Equal(t, "ok", act(t, c, "write:after", "/tmp/after"))
	require.Equal(t, "ok", act(t, c, "open", "/tmp/after"))
	require.Equal(t, "EPERM", act(t, c, "exec", "/tmp/bad"))
	s.within(t, 10*time.Second, "workers were killed in the middle of files", func() bool {
		return s.counter(t, "engine_crashes_total") > before
	})
}

// crowd starts processes in a container that open its files 10,000 times in
// all, calls then in the middle of it, and returns how long the slowest open of
// each took.
func (s *stand) crowd(t *testing.T, c *containerdtest.Container, paths []string, then func()) []time.Duration {
	t.Helper()
	const actors, each = 10, 1000
	dir := filepath.Join(s.bind, t.Name())
	require.NoError(t, os.MkdirAll(dir, 0o755))
	results := make([]string, actors)
	var all sync.WaitGroup
	for i := range actors {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			r, err := c.Exec(ctx, "/bin/actor", fmt.Sprintf("crowd:%d:/srv/%s", each, t.Name()), paths[i%len(paths)])
			results[i] = strings.TrimSpace(r.Stdout)
			if err != nil || r.Code != 0 {
				results[i] = fmt.Sprint(err, r.Stderr)
			}
		})
	}
	s.within(t, 30*time.Second, "all are there", func() bool {
		there, err := filepath.Glob(filepath.Join(dir, "there*"))
		return err == nil && len(there) == actors
	})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go"), nil, 0o644))
	time.Sleep(100 * time.Millisecond)
	then()
	all.Wait()
	out := make([]time.Duration, actors)
	for i, r := range results {
		var err error
		out[i], err = time.ParseDuration(r)
		require.NoError(t, err, r)
	}
	return out
}

// malicious writes files that are denied, each with its finding.
func (s *stand) malicious(t *testing.T, c *containerdtest.Container, first int) []string {
	t.Helper()
	var paths []string
	for i := range 5 {
		path := "/tmp/before" + strconv.Itoa(i)
		require.Equal(t, "ok", act(t, c, "write:"+eicar(first+i), path))
		require.Equal(t, "EPERM", act(t, c, "open", path))
		paths = append(paths, path)
	}
	return paths
}

// testKilledService: the service is killed in the middle of 10,000 opens.
// Nobody waits longer than the deadline and the hold, it comes back by itself,
// and no finding is lost.
func testKilledService(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "deny")
	// A finding is durable before its access is denied: the manager need not
	// have seen it.
	bad := s.malicious(t, c, 80)
	require.Equal(t, "ok", act(t, c, "write:harmless", "/tmp/good"))
	old := s.service(t)
	var killed time.Time
	slowest := s.crowd(t, c, append(slices.Clone(bad), "/tmp/good"), func() {
		killed = time.Now()
		require.NoError(t, unix.Kill(old, unix.SIGKILL))
	})
	for _, d := range slowest {
		require.Less(t, d, deadline+2*time.Second)
	}
	s.within(t, 20*time.Second, "the service is back", func() bool {
		now := children(s.daemon.Process.Pid)
		return len(now) == 1 && now[0] != old
	})
	s.ready(t, killed)
	for _, path := range bad {
		s.finding(t, c, path, func(*threat.Finding) bool { return true })
		require.Equal(t, "EPERM", act(t, c, "open", path), "protection is back")
	}
	require.Equal(t, "ok", act(t, c, "open", "/tmp/good"))
}

// testKilledSupervisor: without its supervisor the service ends and nobody
// hangs; after a new start everything is there.
func testKilledSupervisor(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "deny")
	bad := s.malicious(t, c, 100)
	service := s.service(t)
	for _, d := range s.crowd(t, c, bad, func() {
		require.NoError(t, s.daemon.Process.Kill())
		<-s.exited
	}) {
		require.Less(t, d, deadline+2*time.Second)
	}
	s.within(t, 20*time.Second, "the service ends", func() bool {
		return errors.Is(unix.Kill(service, 0), unix.ESRCH)
	})
	require.NoError(t, s.log.Close())
	s.start(t)
	for _, path := range bad {
		s.finding(t, c, path, func(*threat.Finding) bool { return true })
		require.Equal(t, "EPERM", act(t, c, "open", path), "protection is back")
	}
}

// testRestart: a stop and a start keep findings, quarantine and a provable
// audit log; between them nothing is in anybody's way.
func testRestart(t *testing.T, s *stand) {
	c := s.container(t, imageClean, "deny")
	require.Equal(t, "ok", act(t, c, "write:"+eicar(90), "/tmp/bad"))
	require.Equal(t, "EPERM", act(t, c, "open", "/tmp/bad"))
	s.finding(t, c, "/tmp/bad", func(*threat.Finding) bool { return true })
	findings := map[string]threat.Hash{}
	for _, f := range s.findings(t) {
		findings[f.ID] = f.Object
	}
	var items []api.QuarantineItem
	require.NoError(t, s.ask(&items, "quarantine", "list", "--limit", "0"))
	require.NotEmpty(t, items)
	require.NotEmpty(t, findings)
	s.stop(t)
	require.Equal(t, "ok", act(t, c, "open", "/tmp/bad"), "a stop on purpose ends the protection")
	_, _, code := s.lazaret("status")
	require.Equal(t, 10, code)

	s.start(t)
	require.Equal(t, "EPERM", act(t, c, "open", "/tmp/bad"))
	after := map[string]bool{}
	for _, f := range s.findings(t) {
		after[f.ID] = true
	}
	for id := range findings {
		require.True(t, after[id], "finding %s is gone", id)
	}
	var kept []api.QuarantineItem
	require.NoError(t, s.ask(&kept, "quarantine", "list", "--limit", "0"))
	require.Len(t, kept, len(items))
	stdout, stderr, code := s.lazaret("audit", "verify")
	require.Zero(t, code, "%s%s", stdout, stderr)
	// What was kept can still be given back.
	for _, i := range kept {
		if i.State == "held" {
			target := s.dir + "/given-back"
			var done api.RestoreResult
			require.NoError(t, s.ask(&done, "quarantine", "restore", i.ID, "--reason", "for analysis", "--path", target, "--allow-for", "1h"))
			info, err := os.Stat(target)
			require.NoError(t, err)
			require.Equal(t, i.Size, info.Size())
			return
		}
	}
	t.Fatal("nothing is held")
}
