package scan

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"time"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/scan/queue"
	"github.com/lazaret/lazaret/internal/threat"
)

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
		req.Volatile = !steady(req.File)
	}
	flight := fileFlight{key: req.Key, limits: req.Limits}
	if req.Volatile || !settled(req.Key, time.Now()) {
		// Another inspection with this key may have read another content.
		flight.alone = s.alone.Add(1)
	}
	// A person waits for on-demand work; it yields to accesses in the queue only.
	if s.cfg.Budget != nil && req.Priority == Scheduled {
		if err := s.cfg.Budget.Wait(ctx, time.Duration(s.worked.Load())); err != nil {
			return Report{}, err
		}
		start := time.Now()
		defer func() { s.worked.Store(int64(time.Since(start))) }()
	}
	u := queue.NewUrgency(req.Priority)
	r, lead, err := s.files.do(ctx, s.life, flight, u, func() (func(context.Context, *queue.Urgency) (Report, error), error) {
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
	if !known && req.Key.Size <= hashFirst {
		var err error
		hash, err = s.hash(ctx, req, u)
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
	if !hash.IsZero() && objects[0].Hash != hash || now != req.Key {
		return changed(objects, epoch), nil
	}
	if memory, disk, limited := keep(objects); memory && disk && !objects[0].Hash.IsZero() && !req.Volatile && settled(req.Key, start) &&
		s.forgets[req.Key.Ino%uint64(len(s.forgets))].Load() == forgets {
		s.cache.Bind(req.Key, objects, epoch, dependsOn(limited, limits))
	}
	return newReport(objects, epoch, cached), nil
}

// hash names the content. Large files take a slot for it, so that many of them
// do not take all processors.
func (s *Service) hash(ctx context.Context, req *Request, u *queue.Urgency) (threat.Hash, error) {
	if req.Key.Size > hashFree {
		release, err := s.queue.Acquire(ctx, u)
		if err != nil {
			return threat.Hash{}, err
		}
		defer release()
	}
	return s.hasher.sum(ctx, req.File, req.Key.Size)
}

// content finds out about a content: by its hash, or by the engine. If the
// objects returned have another hash, the file changed between. A zero hash is
// not known yet.
func (s *Service) content(ctx context.Context, req *Request, hash threat.Hash, limits uint32, u *queue.Urgency) (objects []threat.Object, epoch threat.Epoch, cached bool, err error) {
	if hash.IsZero() {
		res, err := s.ask(ctx, req.File, hash, req.Limits, limits, u)
		if err != nil {
			return nil, 0, false, err
		}
		return res.objects, res.epoch, false, nil
	}
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
	if objects, ok := s.cache.Recent(hash, epoch, limits); ok && !hash.IsZero() {
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
	if !hash.IsZero() && res.Objects[0].Hash != hash || res.Objects[0].Hash.IsZero() {
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
