// Package scan is the scan service: one place on a host that decides whether
// content has to be inspected, asks the engine at most once per content and
// epoch, and lets urgent work go first. A Scanner runs it over targets.
package scan

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
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

	countAfter time.Duration // when a scan starts to count ahead
}

type fileFlight struct {
	key    event.FileKey
	limits engine.Limits
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

// Inspect returns the verdict of a file: from the cache, from an inspection of
// the same content that is under way, or by asking the engine when it is this
// request's turn. An error means that there is no verdict: ctx ended, the queue
// is full (queue.ErrFull), the file could not be read, or the engine could not
// be asked.
func (s *Service) Inspect(ctx context.Context, req Request) (Report, error) {
	if req.Key == (event.FileKey{}) {
		k, err := KeyOf(req.File)
		if err != nil {
			return Report{}, err
		}
		req.Key = k
	}
	sum := s.limits
	if req.Limits = req.Limits.WithDefaults(); req.Limits != s.defaults {
		sum = limitsSum(req.Limits)
	}
	if !req.Volatile {
		if r, ok := s.known(ctx, req.Key, sum, needAll); ok {
			s.note(&req, &r)
			return r, nil
		}
	}
	if s.cfg.Budget != nil && req.Priority != OnAccess {
		if err := s.cfg.Budget.Wait(ctx); err != nil {
			return Report{}, err
		}
	}
	u := queue.NewUrgency(req.Priority)
	r, lead, err := s.files.do(ctx, s.life, fileFlight{req.Key, req.Limits}, u, func() (func(context.Context, *queue.Urgency) (Report, error), error) {
		f, err := dup(req.File)
		if err != nil {
			return nil, err
		}
		own := req
		own.File = f
		return func(ctx context.Context, u *queue.Urgency) (Report, error) {
			defer f.Close()
			return s.inspect(ctx, &own, sum, u)
		}, nil
	})
	if err != nil {
		return Report{}, err
	}
	if !lead {
		r.Cached = true
		s.stats.joined.Add(1)
	}
	s.note(&req, &r)
	return r, nil
}

// need says how much of a report is wanted.
type need uint8

const (
	needVerdict need = iota // a clean report may lack its objects
	needCheap               // everything, if that costs no look at the disk
	needAll
)

// known answers from the cache by inode version. That an inode version is known
// may be learnt from the disk, for many files at once.
func (s *Service) known(ctx context.Context, k event.FileKey, limits uint32, n need) (Report, bool) {
	r, ok := s.lookup(k, limits)
	if !ok {
		s.cache.Load(ctx, k)
		rec, known := s.cache.Known(k, s.cfg.Epoch(), limits)
		if !known {
			return Report{}, false
		}
		r = Report{
			Hash: rec.Hash, Size: k.Size, Type: rec.Type, Verdict: rec.Verdict,
			Epoch: rec.Epoch, Cached: true, Count: rec.Count,
		}
		s.stats.known.Add(1)
	}
	switch {
	case r.Objects != nil || r.Verdict == threat.Clean && n == needVerdict:
		return r, true
	case r.Verdict == threat.Clean && r.Count == 1:
		r.Objects = []threat.Object{{Hash: r.Hash, Size: r.Size, Type: r.Type, Verdict: threat.Clean}}
		return r, true
	case n == needAll:
		r.Objects, ok = s.cache.Objects(ctx, r.Hash, r.Epoch, limits)
	default:
		r.Objects, ok = s.cache.Recent(r.Hash, r.Epoch, limits)
	}
	return r, ok
}

func (s *Service) note(req *Request, r *Report) {
	if req.Location.Path != "" && !r.Hash.IsZero() {
		s.cache.Remember(r.Hash, req.Location)
	}
}

// inspect is the work that callers with the same file share.
func (s *Service) inspect(ctx context.Context, req *Request, limits uint32, u *queue.Urgency) (Report, error) {
	start := time.Now()
	forgets := s.forgets[req.Key.Ino%uint64(len(s.forgets))].Load()
	hash, known := threat.Hash{}, false
	if !req.Volatile {
		hash, known = s.cache.Content(req.Key)
	}
	if !known {
		var err error
		hash, err = s.hasher.sum(ctx, req.File, req.Key.Size)
		if errors.Is(err, errGrown) {
			return changed([]threat.Object{{Size: req.Key.Size, Verdict: threat.Partial}}, s.cfg.Epoch()), nil
		}
		if err != nil {
			return Report{}, err
		}
	}
	objects, epoch, cached, err := s.content(ctx, req, hash, limits, u)
	if err != nil {
		return Report{}, err
	}
	now, err := KeyOf(req.File)
	if err != nil {
		return Report{}, err
	}
	if objects[0].Hash != hash || now != req.Key {
		return changed(objects, epoch), nil
	}
	if memory, disk, limited := keep(objects); memory && disk && !req.Volatile && settled(req.Key, start) &&
		s.forgets[req.Key.Ino%uint64(len(s.forgets))].Load() == forgets {
		s.cache.Bind(req.Key, objects, epoch, dependsOn(limited, limits))
	}
	return newReport(objects, epoch, cached), nil
}

// content finds out about a content: by its hash, or by the engine. If the
// objects returned have another hash, the file changed between.
func (s *Service) content(ctx context.Context, req *Request, hash threat.Hash, limits uint32, u *queue.Urgency) (objects []threat.Object, epoch threat.Epoch, cached bool, err error) {
	for {
		epoch = s.cfg.Epoch()
		if objects, ok := s.cache.Objects(ctx, hash, epoch, limits); ok {
			s.stats.content.Add(1)
			return objects, epoch, true, nil
		}
		res, lead, err := s.bodies.do(ctx, s.life, bodyFlight{hash, req.Limits}, u, func() (func(context.Context, *queue.Urgency) (*finding, error), error) {
			f, err := dup(req.File)
			if err != nil {
				return nil, err
			}
			return func(ctx context.Context, u *queue.Urgency) (*finding, error) {
				defer f.Close()
				return s.ask(ctx, f, hash, req.Limits, limits, u)
			}, nil
		})
		if err != nil {
			return nil, 0, false, err
		}
		if !lead && res.objects[0].Hash != hash {
			continue // the other file changed, not this one
		}
		return res.objects, res.epoch, res.cached || !lead, nil
	}
}

// ask waits for a slot, asks the engine and remembers the result by content.
func (s *Service) ask(ctx context.Context, f *os.File, hash threat.Hash, l engine.Limits, limits uint32, u *queue.Urgency) (*finding, error) {
	release, err := s.queue.Acquire(ctx, u)
	if err != nil {
		return nil, err
	}
	defer release()
	// Another inspection of the same content may have ended between this one's
	// look into the cache and its start.
	epoch := s.cfg.Epoch()
	if objects, ok := s.cache.Recent(hash, epoch, limits); ok {
		return &finding{objects, epoch, true}, nil
	}
	res, err := s.cfg.Inspector.Inspect(ctx, f, l)
	if err != nil {
		return nil, fmt.Errorf("asking the engine: %w", err)
	}
	if len(res.Objects) == 0 {
		return nil, errors.New("asking the engine: the result is empty")
	}
	s.stats.inspected.Add(1)
	found := &finding{objects: res.Objects, epoch: res.Epoch}
	if res.Objects[0].Hash.IsZero() {
		res.Objects[0].Hash = hash // the engine ended before it had one
	}
	if res.Objects[0].Hash != hash {
		return found, nil
	}
	if memory, disk, limited := keep(res.Objects); memory {
		s.cache.Put(event.FileKey{}, res.Objects, res.Epoch, dependsOn(limited, limits), disk)
	}
	return found, nil
}

func dependsOn(limited bool, limits uint32) uint32 {
	if limited {
		return limits
	}
	return 0
}

// limitsSum names a set of limits; never 0.
func limitsSum(l engine.Limits) uint32 {
	b := fmt.Appendf(make([]byte, 0, 128), "%d %d %d %d %d %d %d %d",
		l.Depth, l.Members, l.MemberSize, l.Total, l.Ratio, l.RatioAfter, l.Buffer, l.Time)
	return max(crc32.ChecksumIEEE(b), 1)
}
