package budget

import (
	"context"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/threat"
)

// ConditionUnavailable says that the kernel has no pressure information.
const ConditionUnavailable = "pressure_unavailable"

// Config of a Budget. Zero fields mean the defaults.
type Config struct {
	// CPU and IO are the "some avg10" percentages over which background work
	// yields; default 60 and 40. Scanning itself causes some pressure, so low
	// values would make it wait for itself.
	CPU, IO float64
	// Load per processor over which it yields where there is no pressure
	// information; default 1.5.
	Load float64
	// Every is how often the kernel is asked at most; default 500 ms.
	Every time.Duration
	// Hold is the longest that one Wait lasts. Default 1 s.
	Hold time.Duration
	// Proc and Cgroup are where the kernel's files are; default /proc and
	// /sys/fs/cgroup.
	Proc, Cgroup string
	Conditions   *condition.Set // required
}

// Budget is safe for concurrent use.
type Budget struct {
	cfg  Config
	cpus float64
	own  string // directory of the own cgroup, empty if there is none

	mu    sync.Mutex
	asked time.Time
	over  bool
}

// New makes a budget. Missing pressure information is a condition, not an
// error.
func New(cfg Config) *Budget {
	def := func(v *float64, d float64) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&cfg.CPU, 60)
	def(&cfg.IO, 40)
	def(&cfg.Load, 1.5)
	if cfg.Every <= 0 {
		cfg.Every = 500 * time.Millisecond
	}
	if cfg.Hold <= 0 {
		cfg.Hold = time.Second
	}
	if cfg.Proc == "" {
		cfg.Proc = "/proc"
	}
	if cfg.Cgroup == "" {
		cfg.Cgroup = "/sys/fs/cgroup"
	}
	b := &Budget{cfg: cfg, cpus: float64(runtime.NumCPU())}
	if text, err := readFile(filepath.Join(cfg.Proc, "self/cgroup")); err == nil {
		if path, ok := parseCgroup(text); ok {
			b.own = filepath.Join(cfg.Cgroup, path)
		}
	}
	return b
}

// Over says whether background work should yield now.
func (b *Budget) Over() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); now.Sub(b.asked) >= b.cfg.Every {
		b.asked = now
		b.over = b.ask()
	}
	return b.over
}

// share is what background work leaves to others while the machine is short of
// something: it pauses so many times as long as it worked.
const share = 9

// Wait returns when the machine has room, or after a pause in proportion to
// what the last piece of work took, of at most Hold, or with the cause of ctx.
func (b *Budget) Wait(ctx context.Context, worked time.Duration) error {
	if !b.Over() {
		return nil
	}
	hold := min(max(share*worked, time.Millisecond), b.cfg.Hold)
	deadline := time.NewTimer(hold)
	defer deadline.Stop()
	tick := time.NewTicker(min(b.cfg.Every, 100*time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-deadline.C:
			return nil
		case <-tick.C:
			if !b.Over() {
				return nil
			}
		}
	}
}

func (b *Budget) ask() bool {
	cpu, err := readPressure(filepath.Join(b.cfg.Proc, "pressure/cpu"))
	if err != nil {
		return b.askLoad(err)
	}
	io, err := readPressure(filepath.Join(b.cfg.Proc, "pressure/io"))
	if err != nil {
		return b.askLoad(err)
	}
	if b.own != "" { // the root cgroup has no files of its own
		if x, err := readPressure(filepath.Join(b.own, "cpu.pressure")); err == nil {
			cpu = max(cpu, x)
		}
		if x, err := readPressure(filepath.Join(b.own, "io.pressure")); err == nil {
			io = max(io, x)
		}
	}
	b.cfg.Conditions.Clear(ConditionUnavailable)
	return cpu > b.cfg.CPU || io > b.cfg.IO
}

func (b *Budget) askLoad(why error) bool {
	b.cfg.Conditions.Raise(threat.Condition{
		Code: ConditionUnavailable, Severity: threat.Informational,
		Text:   fmt.Sprintf("The kernel gives no pressure information (%v); background scans yield by the load average instead, which reacts slowly.", why),
		Advice: "Boot with psi=1 on a kernel with CONFIG_PSI.",
	})
	text, err := readFile(filepath.Join(b.cfg.Proc, "loadavg"))
	if err != nil {
		return false
	}
	load, err := parseLoad(text)
	return err == nil && load > b.cfg.Load*b.cpus
}
