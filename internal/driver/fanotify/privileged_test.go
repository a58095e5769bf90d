//go:build privileged

package fanotify

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/driver/loopfs"
	"github.com/lazaret/lazaret/internal/driver/writeback"
	"github.com/lazaret/lazaret/internal/event"
)

func TestMain(m *testing.M) {
	loopfs.Act()
	os.Exit(loopfs.Main(m))
}

// evil is content that the test's handler denies.
var evil = []byte("#!/bin/sh\n# evil\nexit 0\n")

// good is a script that runs; padded to a page so that it can be mapped.
var good = append([]byte("#!/bin/sh\nexit 0\n#"), bytes.Repeat([]byte("."), 5000)...)

// inspector reads content and denies evil; fields may be replaced.
type inspector struct {
	mu        sync.Mutex
	opens     map[string]int
	ops       map[event.Op]int
	written   []string
	overflows atomic.Int32
	access    func(context.Context, *event.File) Answer
	onWritten func(*event.File)
}

func (i *inspector) Access(ctx context.Context, ev *event.File) Answer {
	i.mu.Lock()
	i.opens[filepath.Base(ev.Path)]++
	i.ops[ev.Op]++
	i.mu.Unlock()
	if i.access != nil {
		return i.access(ctx, ev)
	}
	return inspect(ev)
}

func inspect(ev *event.File) Answer {
	buf := make([]byte, 4096)
	n, _ := ev.File.ReadAt(buf, 0)
	bad := bytes.Contains(buf[:n], []byte("evil")) || n > 0 && buf[0] == 'X' || n > 1 && buf[1] == 'P'
	return Answer{Allow: !bad, Remember: !bad}
}

func (i *inspector) Written(_ context.Context, ev *event.File) {
	if i.onWritten != nil {
		i.onWritten(ev)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.written = append(i.written, filepath.Base(ev.Path))
}

func (i *inspector) Overflow(context.Context) { i.overflows.Add(1) }

func (i *inspector) seen(name string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.opens[name]
}

func (i *inspector) did(op event.Op) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.ops[op]
}

func (i *inspector) wrote(name string) int {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := 0
	for _, w := range i.written {
		if w == name {
			n++
		}
	}
	return n
}

// rig is a driver over a file system of its own, and an actor.
type rig struct {
	*inspector
	driver     *Driver
	actor      *loopfs.Actor
	dir        string
	conditions *condition.Set
	group      *Group
	stop       func() // ends the driver and waits for it
}

type rigOption func(*Config, *GroupConfig, *inspector)

// setup starts a driver on a file system; everything, the group above all,
// ends with the test.
func setup(t *testing.T, kind string, watch bool, opts ...rigOption) *rig {
	t.Helper()
	dir := loopfs.New(t, kind)
	r := &rig{
		inspector: &inspector{opens: map[string]int{}, ops: map[event.Op]int{}},
		dir:       dir, conditions: &condition.Set{}, actor: loopfs.NewActor(t),
	}
	cfg := Config{
		Handler: r.inspector, Conditions: r.conditions, Deadline: 2 * time.Second, Settle: time.Nanosecond,
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), // shown on failure
	}
	var gcfg GroupConfig
	for _, o := range opts {
		o(&cfg, &gcfg, r.inspector)
	}
	g, _, err := Open(gcfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, g.Close()) })
	r.group, cfg.Group = g, g

	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	var w *writeback.Watcher
	if watch {
		w, err = writeback.New(writeback.Config{
			Changed: func(dev uint32, ino uint64) { r.driver.Changed(dev, ino) },
			Lost:    func() { r.driver.ForgetAll() },
		})
		require.NoError(t, err)
		cfg.Watcher = w
		t.Cleanup(func() { require.NoError(t, w.Close()) })
	}
	r.driver, err = New(cfg)
	require.NoError(t, err)
	require.NoError(t, r.driver.Protect(dir))
	if watch {
		wg.Go(func() {
			if err := w.Run(ctx); err != nil {
				t.Errorf("watcher: %v", err)
			}
		})
	}
	wg.Go(func() {
		if err := r.driver.Run(ctx); err != nil {
			t.Errorf("driver: %v", err)
		}
	})
	r.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(r.stop)
	return r
}

func (r *rig) put(t *testing.T, name string, content []byte) string {
	t.Helper()
	p := filepath.Join(r.dir, name)
	require.NoError(t, os.WriteFile(p, content, 0o755))
	return p
}

// remembered opens a clean file until the kernel no longer asks.
func (r *rig) remembered(t *testing.T, path string) {
	t.Helper()
	require.Equal(t, "ok", r.actor.Do("open", path))
	name := filepath.Base(path)
	defer func() {
		if t.Failed() {
			t.Logf("counters: %+v", r.driver.Stats())
		}
	}()
	require.Eventually(t, func() bool {
		before := r.seen(name)
		return r.actor.Do("open", path) == "ok" && r.seen(name) == before
	}, 5*time.Second, 5*time.Millisecond, "the file is never remembered")
}

func TestDeny(t *testing.T) {
	for _, kind := range loopfs.Kinds() {
		t.Run(kind, func(t *testing.T) {
			r := setup(t, kind, true)
			bad, ok := r.put(t, "bad", evil), r.put(t, "ok", good)
			require.NoError(t, os.Mkdir(filepath.Join(r.dir, "lower"), 0o755))
			r.put(t, "lower/bad", evil)
			merged, _ := loopfs.Overlay(t, filepath.Join(r.dir, "lower"))
			bind := loopfs.Bind(t, bad)
			for _, verb := range []string{"open", "exec", "uring"} {
				require.Equal(t, "EPERM", r.actor.Do(verb, bad), verb)
				require.Equal(t, "EPERM", r.actor.Do(verb, bind), "%s through a bind mount", verb)
				require.Equal(t, "EPERM", r.actor.Do(verb, filepath.Join(merged, "bad")), "%s of a lower layer", verb)
				require.Equal(t, "ok", r.actor.Do(verb, ok), verb)
			}
			require.Positive(t, r.did(event.Exec))
			require.Positive(t, r.driver.Stats().Denied)
			require.Zero(t, r.driver.Stats().Timeouts)
		})
	}
}

// TestRemember: the second open of a clean file raises no event, any change
// brings the inspection back, and an execution is always seen.
func TestRemember(t *testing.T) {
	for _, kind := range loopfs.Kinds() {
		t.Run(kind, func(t *testing.T) {
			r := setup(t, kind, true)
			p := r.put(t, "file", good)
			r.remembered(t, p)
			before := r.driver.Stats().Events
			require.Equal(t, "ok", r.actor.Do("opens:100", p))
			require.Equal(t, before, r.driver.Stats().Events)

			require.Equal(t, "ok", r.actor.Do("exec", p))
			require.Positive(t, r.did(event.Exec), "an execution is never ignored")

			require.Equal(t, "ok", r.actor.Do("write:evil", p))
			require.Equal(t, "EPERM", r.actor.Do("open", p))
			require.Equal(t, "EPERM", r.actor.Do("exec", p))
			require.Eventually(t, func() bool { return r.wrote("file") > 0 }, time.Second, time.Millisecond)

			r.put(t, "file", good)
			r.remembered(t, p)
			r.driver.ForgetAll()
			n := r.seen("file")
			require.Equal(t, "ok", r.actor.Do("open", p))
			require.Equal(t, n+1, r.seen("file"), "ForgetAll removes the mark")
		})
	}
}

// TestSharedMapping: a store to a shared mapping clears the mark, and the file
// is inspected again.
func TestSharedMapping(t *testing.T) {
	for _, kind := range loopfs.Kinds() {
		t.Run(kind, func(t *testing.T) {
			r := setup(t, kind, true)
			for i := range 8 {
				p := r.put(t, "mapped"+string(rune('a'+i)), good)
				r.remembered(t, p)
				require.Equal(t, "ok", r.actor.Do("store", p))
				require.Eventually(t, func() bool { return r.actor.Do("open", p) == "EPERM" },
					2*time.Second, time.Millisecond, "the changed file was not inspected again: %+v", r.driver.Stats())
			}
			require.GreaterOrEqual(t, r.driver.Stats().Dirtied, uint64(8))
		})
	}
}

// TestLiveMapping: while a writable mapping lives, its owner can change the
// file without any trace; such a file is neither remembered nor called stable.
func TestLiveMapping(t *testing.T) {
	var unstable atomic.Int32
	r := setup(t, "ext4", true, func(_ *Config, _ *GroupConfig, i *inspector) {
		i.access = func(_ context.Context, ev *event.File) Answer {
			if ev.Unstable {
				unstable.Add(1)
			}
			return inspect(ev)
		}
	})
	p := r.put(t, "live", good)
	holder := loopfs.NewActor(t)
	require.Equal(t, "ok", holder.Do("hold", p))
	for range 20 {
		require.Equal(t, "ok", r.actor.Do("open", p))
	}
	require.GreaterOrEqual(t, r.seen("live"), 21, "every open is inspected")
	require.GreaterOrEqual(t, unstable.Load(), int32(20))
	require.Equal(t, "ok", holder.Do("poke", p))
	require.Equal(t, "EPERM", r.actor.Do("open", p))
}

func TestWithoutWatcher(t *testing.T) {
	r := setup(t, "ext4", false)
	r.remembered(t, r.put(t, "file", good))
	var codes []string
	for _, c := range r.conditions.List() {
		codes = append(codes, c.Code)
	}
	require.Contains(t, codes, ConditionMmapUnseen)
}

// TestEviction: more files than the table holds; the oldest lose their mark.
func TestEviction(t *testing.T) {
	r := setup(t, "xfs", true, func(c *Config, _ *GroupConfig, _ *inspector) { c.Remembered = 2 })
	first := r.put(t, "first", good)
	r.remembered(t, first)
	r.remembered(t, r.put(t, "second", good))
	r.remembered(t, r.put(t, "third", good))
	require.Equal(t, uint64(2), r.driver.Stats().Remembered)
	n := r.seen("first")
	require.Equal(t, "ok", r.actor.Do("open", first))
	require.Equal(t, n+1, r.seen("first"))
}
