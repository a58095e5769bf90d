// Package program is what runs inside lazaret-engine: the inspection worker
// and the rule compiler. Both lock themselves down before they see a byte that
// came from elsewhere. It is the only package that brings libyara together
// with the rest, so that everything else builds without C.
package program

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/engine/inspect"
	"github.com/lazaret/lazaret/internal/engine/ruleset"
	"github.com/lazaret/lazaret/internal/engine/sandbox"
	"github.com/lazaret/lazaret/internal/engine/worker"
	"github.com/lazaret/lazaret/internal/engine/yara"
)

// socketFD is where a pool puts a worker's end of their socket.
const socketFD = 3

// reserve is what Go, libc and thread stacks may map without using it, added
// to the memory limit for RLIMIT_DATA.
const reserve = 768 << 20

// Worker serves inspections over the inherited socket until it ends.
func Worker() error {
	// libyara keeps state per thread, and a blocking receive on a thread of
	// its own is cheaper than the poller.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	config := sandbox.Config{Namespaces: os.Getenv(worker.NamespacesVariable) != ""}
	if limit, err := strconv.ParseInt(os.Getenv(worker.MemoryLimitVariable), 10, 64); err == nil && limit > 0 {
		config.Data = limit + reserve
	}
	report, err := sandbox.Enter(config)
	if err != nil {
		return fmt.Errorf("locking the worker down: %w", err)
	}
	return worker.Serve(os.NewFile(socketFD, "pool"), func(files map[string]*os.File) (*worker.Loaded, error) {
		l, err := load(files)
		if err != nil {
			return nil, err
		}
		l.Ready.Sandbox = report
		return l, nil
	})
}

// load makes the engines of a compiled bundle: hash sets first, they are
// cheapest.
func load(files map[string]*os.File) (*worker.Loaded, error) {
	var sets []*hashset.Set
	rules := map[ruleset.Class]io.Reader{}
	out := &worker.Loaded{}
	for _, a := range []hashset.Algorithm{hashset.SHA256, hashset.SHA1, hashset.MD5} {
		f := files[a.File()]
		if f == nil {
			continue
		}
		set, err := hashset.Open(f)
		if err != nil {
			return nil, fmt.Errorf("opening %s: %w", a.File(), err)
		}
		sets = append(sets, set)
		out.Ready.Hashes += set.Len()
	}
	for _, class := range ruleset.Classes {
		if f := files[class.String()+".yarc"]; f != nil {
			rules[class] = io.NewSectionReader(f, 0, 1<<40)
			defer f.Close()
		}
	}
	hashes, err := hashset.NewEngine(sets...)
	if err != nil {
		return nil, err
	}
	scanner, err := yara.Load(rules)
	if err != nil {
		return nil, err
	}
	out.Ready.Rules = scanner.Rules()
	p := newPipeline(inspect.Config{Engines: []engine.Engine{hashes, scanner},
		NeedSHA1: hashes.NeedSHA1(-1), NeedMD5: hashes.NeedMD5(-1)})
	out.Pipeline = p
	out.Idle = func() {
		p.release()
		debug.FreeOSMemory()
		yara.Trim()
	}
	out.Idle() // loading leaves buffers behind
	return out, nil
}
