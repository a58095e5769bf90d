// Package scan is the scan service: one place on a host that decides whether
// content has to be inspected, asks the engine at most once per content and
// epoch, and lets urgent work go first. A Scanner runs it over targets.
package scan

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/scan/budget"
	"github.com/lazaret/lazaret/internal/scan/cache"
	"github.com/lazaret/lazaret/internal/scan/queue"
	"github.com/lazaret/lazaret/internal/threat"
)

// The priorities of requests.
const (
	Scheduled = queue.Scheduled
	OnDemand  = queue.OnDemand
	OnAccess  = queue.OnAccess
)

// Config of a Service.
type Config struct {
	// Dir holds scan.db.
	Dir string
	// Inspector does the work; the caller closes it after the Service.
	Inspector engine.Inspector
	// Epoch returns the number of the active bundle. It is called for every
	// access, so it must be as cheap as an atomic load.
	Epoch func() threat.Epoch
	// Workers is how many inspections the Inspector runs at once; default 1.
	Workers int
	// Reserve is how many of them only on-access work may use. The command line
	// without a daemon needs none.
	Reserve int
	// Budget makes background work yield; nil lets it run at full speed.
	Budget *budget.Budget
	// Known bounds the inode versions kept in memory; see cache.Config.
	Known      int
	Conditions *condition.Set // required
	Logger     *slog.Logger   // required
}

// Request asks for one file.
type Request struct {
	// File is open for reading; the caller keeps and closes it.
	File *os.File
	// Key of the file as it was opened; the zero value makes Inspect look itself.
	Key      event.FileKey
	Priority queue.Priority
	// Location is noted in the content index unless its Path is empty.
	Location threat.Location
	// Limits of the inspection; zero fields mean the defaults.
	Limits engine.Limits
	// Volatile says that Key does not name the content beyond this request: a
	// temporary copy whose inode will be used for something else.
	Volatile bool
}

// Service is safe for concurrent use.
type Service struct {
	cfg    Config
	cache  *cache.Cache
	queue  *queue.Queue
	hasher hasher

	defaults engine.Limits
	limits   uint32 // checksum of the default limits

	life   context.Context
	end    context.CancelFunc
	files  group[fileFlight, Report]
	bodies group[bodyFlight, *finding]
	// forgets counts Forget calls by inode, so that an inspection under way
	// then does not bring the forgotten version back.
	forgets [256]atomic.Uint32
	stats   counters
	alone   atomic.Uint64
	worked  atomic.Int64 // nanoseconds of the last scheduled inspection

	countAfter time.Duration // when a scan starts to count ahead
}

type fileFlight struct {
	key    event.FileKey
	limits engine.Limits
	alone  uint64 // not 0: the key does not name the content, nobody may join
}

// finding is what is known about a content.
type finding struct {
	objects []threat.Object
	epoch   threat.Epoch
	cached  bool
}

type bodyFlight struct {
	hash   threat.Hash
	limits engine.Limits
}

// New opens the service. The caller runs Run and calls Close.
func New(cfg Config) (*Service, error) {
	if cfg.Inspector == nil || cfg.Epoch == nil || cfg.Conditions == nil || cfg.Logger == nil {
		return nil, errors.New("making scan service: inspector, epoch, conditions and logger are required")
	}
	cfg.Workers = max(cfg.Workers, 1)
	if cfg.Reserve < 0 || cfg.Reserve >= cfg.Workers && cfg.Reserve > 0 {
		return nil, fmt.Errorf("making scan service: %d of %d workers reserved for on-access work", cfg.Reserve, cfg.Workers)
	}
	// One slot more than there are workers: the next file is handed over while
	// the last one is still being answered. Not where workers are reserved:
	// background work in the extra slot would take a reserved worker.
	reserve := cfg.Reserve
	if reserve > 0 {
		reserve++
	}
	q, err := queue.New(queue.Config{Slots: cfg.Workers + 1, Reserve: reserve})
	if err != nil {
		return nil, fmt.Errorf("making scan service: %w", err)
	}
	c, err := cache.Open(context.Background(), cache.Config{
		Dir: cfg.Dir, Capacity: cfg.Known, Conditions: cfg.Conditions, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("making scan service: %w", err)
	}
	s := &Service{cfg: cfg, cache: c, queue: q, defaults: engine.DefaultLimits(), countAfter: time.Second}
	s.limits = limitsSum(s.defaults)
	s.life, s.end = context.WithCancel(context.Background())
	return s, nil
}

// Run writes the cache behind until ctx ends.
func (s *Service) Run(ctx context.Context) error { return s.cache.Run(ctx) }

// Close cancels what is under way, writes what is pending and closes the files.
func (s *Service) Close() error {
	s.end()
	return s.cache.Close()
}

// Workers is the configured number of concurrent inspections.
func (s *Service) Workers() int { return s.cfg.Workers }

// Epoch is the active bundle's number.
func (s *Service) Epoch() threat.Epoch { return s.cfg.Epoch() }

// Forget drops an inode version whose content may have changed without its
// key, as a store through a shared mapping can.
func (s *Service) Forget(k event.FileKey) {
	s.forgets[k.Ino%uint64(len(s.forgets))].Add(1)
	s.cache.Forget(k)
}

// Seen returns where an object was seen.
func (s *Service) Seen(ctx context.Context, h threat.Hash) ([]threat.Location, error) {
	return s.cache.Seen(ctx, h)
}

// Workloads counts the workloads in which an object was seen.
func (s *Service) Workloads(ctx context.Context, h threat.Hash) (int, error) {
	return s.cache.Workloads(ctx, h)
}

// Remember notes where an object was seen.
func (s *Service) Remember(h threat.Hash, l threat.Location) { s.cache.Remember(h, l) }

// Lookup answers for a known inode version from memory, for the default
// limits: no waiting, no allocation when clean.
func (s *Service) Lookup(k event.FileKey) (Report, bool) {
	return s.lookup(k, s.limits)
}

func (s *Service) lookup(k event.FileKey, limits uint32) (Report, bool) {
	epoch := s.cfg.Epoch()
	rec, ok := s.cache.Known(k, epoch, limits)
	if !ok {
		return Report{}, false
	}
	r := Report{
		Hash: rec.Hash, Size: k.Size, Type: rec.Type, Verdict: rec.Verdict,
		Epoch: epoch, Cached: true, Count: rec.Count,
	}
	if rec.Verdict != threat.Clean {
		if r.Objects, ok = s.cache.Recent(rec.Hash, epoch, limits); !ok {
			return Report{}, false // Inspect finds it on disk
		}
	}
	s.stats.known.Add(1)
	return r, true
}
