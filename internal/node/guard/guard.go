// Package guard decides about accesses: who opens what, what is known about
// the content, what the policy says. It answers the file-system driver, makes
// the findings and hands them to the response.
package guard

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/driver/fanotify"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload"
)

// Scans is what the guard needs of the scan service.
type Scans interface {
	Lookup(key event.FileKey) (scan.Report, bool)
	Inspect(ctx context.Context, r scan.Request) (scan.Report, error)
	Remember(h threat.Hash, l threat.Location)
}

// Attributor tells whose access it is and where the file is for its workload.
type Attributor interface {
	Host() threat.Workload
	Workloads() []threat.Workload
	Process(pid int) (threat.Workload, error)
	Describe(pid int) (threat.Process, error)
	Locate(pid int, name string, dev, ino uint64) (workload.Place, error)
	// Holder answers for files whose process is gone.
	Holder(name string, dev, ino uint64) (threat.Workload, workload.Place, error)
}

// Cases records a finding durably before Open returns and carries the decision
// out afterwards.
type Cases interface {
	Open(ctx context.Context, c Case) error
}

// Case is a finding with what is needed to act on it.
type Case struct {
	Finding  threat.Finding
	Decision policy.Decision
	Key      event.FileKey
	Place    workload.Place // raw, for removing the file
	PID      int            // the process that accessed the file
}

// Config of a Guard. All fields are required.
type Config struct {
	Node       string
	Scans      Scans
	Who        Attributor
	Cases      Cases
	Conditions *condition.Set
	Logger     *slog.Logger
}

// Guard implements fanotify.Handler.
type Guard struct {
	Config
	policies atomic.Pointer[policy.Set]
	allowed  atomic.Pointer[map[threat.Hash]time.Time]
	stats    Stats
	repeats  repeats
}

// Stats counts what the guard answered.
type Stats struct {
	Denied, Timeouts, Threats, Unattributed atomic.Int64
}

// New returns a guard with the built-in default policy.
func New(c Config) *Guard {
	g := &Guard{Config: c, repeats: repeats{seen: map[repeatKey]time.Time{}}}
	g.policies.Store(policy.NewSet(nil))
	g.allowed.Store(&map[threat.Hash]time.Time{})
	return g
}

// SetPolicies replaces the policies for all later accesses.
func (g *Guard) SetPolicies(s *policy.Set) { g.policies.Store(s) }

// Policies returns the active set.
func (g *Guard) Policies() *policy.Set { return g.policies.Load() }

// SetAllowed replaces the objects that people declared harmless, with the time
// each permission ends.
func (g *Guard) SetAllowed(m map[threat.Hash]time.Time) { g.allowed.Store(&m) }

// Allowed reports whether a person declared the object harmless.
func (g *Guard) Allowed(h threat.Hash) bool {
	until, ok := (*g.allowed.Load())[h]
	return ok && time.Now().Before(until)
}

// Stats returns the counters.
func (g *Guard) Stats() *Stats { return &g.stats }

var (
	allow    = fanotify.Answer{Allow: true}
	remember = fanotify.Answer{Allow: true, Remember: true}
	deny     = fanotify.Answer{}
)

// Access answers a waiting open or execution.
func (g *Guard) Access(ctx context.Context, ev *event.File) fanotify.Answer {
	// What is known to be clean needs no policy: this is the path of every
	// repeated open.
	report, known := g.lookup(ev)
	if known && report.Verdict == threat.Clean {
		return remember
	}
	w := g.workload(ev)
	p, _ := g.policies.Load().For(w)
	if p.Spec.Mode == policy.Off || (ev.Op == event.Open && !p.Spec.OnAccess.Open) || (ev.Op == event.Exec && !p.Spec.OnAccess.Exec) {
		return allow
	}
	if !known {
		var err error
		if report, err = g.inspect(ctx, ev, &p); err != nil {
			return g.unanswered(ctx, ev, w, &p, err)
		}
		if report.Verdict == threat.Clean {
			g.index(ev, w, &report)
			return remember
		}
	}
	return g.judge(ctx, ev, w, &p, report)
}

// lookup answers for a known version of a file. A file that somebody has open
// for writing can change without its version changing.
func (g *Guard) lookup(ev *event.File) (scan.Report, bool) {
	if ev.Unstable {
		return scan.Report{}, false
	}
	return g.Scans.Lookup(ev.Key)
}

// index notes where a clean object was seen, so that a signature published
// later finds it.
func (g *Guard) index(ev *event.File, w threat.Workload, r *scan.Report) {
	if place, ok := g.locate(ev, w); ok {
		g.Scans.Remember(r.Hash, place.Location(w))
	}
}

// workload is whose access it is. The process may have ended before a written
// file is looked at: then the file tells. An access nobody can be found for is
// the host's, so that a policy applies.
func (g *Guard) workload(ev *event.File) threat.Workload {
	w, err := g.Who.Process(ev.PID)
	if err == nil {
		return w
	}
	if w, _, err = g.Who.Holder(ev.Path, ev.Key.Dev, ev.Key.Ino); err == nil {
		return w
	}
	g.stats.Unattributed.Add(1)
	return g.Who.Host()
}

// locate finds the file for its workload. A process that is ending still has
// its workload but no mounts any more. Without success the place has only the
// event's path.
func (g *Guard) locate(ev *event.File, w threat.Workload) (workload.Place, bool) {
	if p, err := g.Who.Locate(ev.PID, ev.Path, ev.Key.Dev, ev.Key.Ino); err == nil {
		return p, true
	}
	if holder, p, err := g.Who.Holder(ev.Path, ev.Key.Dev, ev.Key.Ino); err == nil && holder.ID == w.ID {
		return p, true
	}
	return workload.Place{Path: ev.Path}, false
}

// longest bounds an inspection that goes on after its opener got an answer.
const longest = time.Minute

// inspect waits for the verdict until the policy's deadline. The inspection
// itself goes on after that, so that the next access finds its result.
func (g *Guard) inspect(ctx context.Context, ev *event.File, p *policy.Policy) (scan.Report, error) {
	wait, cancel := context.WithTimeout(ctx, p.Spec.Deadline)
	defer cancel()
	type result struct {
		report scan.Report
		err    error
	}
	done := make(chan result, 1)
	go func() {
		own, cancel := context.WithTimeout(context.WithoutCancel(ctx), longest)
		defer cancel()
		r, err := g.Scans.Inspect(own, scan.Request{File: ev.File, Key: ev.Key, Priority: scan.OnAccess, Limits: p.Spec.Limits, Volatile: ev.Unstable})
		done <- result{r, err}
	}()
	select {
	case r := <-done:
		return r.report, r.err
	case <-wait.Done():
		return scan.Report{}, wait.Err()
	}
}

// unanswered applies the policy's fail mode to an access nobody could judge.
func (g *Guard) unanswered(ctx context.Context, ev *event.File, w threat.Workload, p *policy.Policy, err error) fanotify.Answer {
	g.stats.Timeouts.Add(1)
	g.Logger.WarnContext(ctx, "access was not judged in time", slog.String("workload", w.ID),
		slog.String("path", ev.Path), slog.Any("error", err))
	g.Conditions.Raise(threat.Condition{
		Code: "access_unjudged", Severity: threat.Medium,
		Text:   "At least one access was answered by the fail mode of policy " + p.Name() + " because its inspection did not end in time: " + err.Error(),
		Advice: "Look at the load of this host (lazaret status) and at the policy's deadline.",
	})
	d := p.Decide(&policy.Input{Workload: w, Verdict: threat.Error})
	if d.Denies() {
		g.stats.Denied.Add(1)
		return deny
	}
	return allow
}

// judge applies the policy to a verdict that is not clean.
func (g *Guard) judge(ctx context.Context, ev *event.File, w threat.Workload, p *policy.Policy, r scan.Report) fanotify.Answer {
	c := g.newCase(ev, w, p, &r)
	g.Scans.Remember(r.Hash, c.Finding.Location)
	denied := c.Decision.Denies() && ev.Op != event.Write
	if r.Verdict.Threat() && c.Decision.Excluded == nil && !g.Allowed(r.Hash) && !g.repeats.again(repeated(c)) {
		g.stats.Threats.Add(1)
		if err := g.Cases.Open(ctx, *c); err != nil {
			g.repeats.forget(repeated(c)) // the next access records it
			g.Logger.ErrorContext(ctx, "finding was not recorded", slog.Any("error", err))
			g.Conditions.Raise(threat.Condition{
				Code: "finding_not_recorded", Severity: threat.Critical,
				Text:   "A finding could not be stored: " + err.Error(),
				Advice: "Free space in the state directory; access to the file stays denied meanwhile.",
			})
		}
	}
	if denied {
		g.stats.Denied.Add(1)
		return deny
	}
	return allow
}

// Written inspects a file that was written; nobody waits.
func (g *Guard) Written(ctx context.Context, ev *event.File) {
	w := g.workload(ev)
	p, _ := g.policies.Load().For(w)
	if p.Spec.Mode == policy.Off || !p.Spec.OnAccess.Write {
		return
	}
	report, known := g.lookup(ev)
	if !known {
		var err error
		if report, err = g.Scans.Inspect(ctx, scan.Request{File: ev.File, Key: ev.Key, Priority: scan.OnDemand, Limits: p.Spec.Limits, Volatile: ev.Unstable}); err != nil {
			return // the next open inspects it
		}
		if report.Verdict == threat.Clean {
			g.index(ev, w, &report)
		}
	}
	if report.Verdict.Threat() {
		g.judge(ctx, ev, w, &p, report)
	}
}

// Overflow is told that events were lost: files may have been written without
// being inspected. Opens are still judged, so nothing gets past on access.
func (g *Guard) Overflow(ctx context.Context) {
	g.Logger.WarnContext(ctx, "file events were lost")
	g.Conditions.Raise(threat.Condition{
		Code: "events_lost", Severity: threat.Medium,
		Text:   "Notifications about written files were lost; these files are inspected when they are opened next.",
		Advice: "Scan the protected file systems (lazaret scan) to find what lies there unopened.",
	})
}

type repeatKey struct {
	workload string
	key      event.FileKey
	written  bool // nobody waited; the first access after it tells who wants the file
	pid      int  // only if the process is to be killed: each one is
}

func repeated(c *Case) repeatKey {
	k := repeatKey{workload: c.Finding.Workload.ID, key: c.Key, written: c.Finding.Trigger == string(event.Write)}
	if c.Decision.Mode == policy.Enforce && slices.Contains(c.Decision.Actions, threat.Kill) {
		k.pid = c.PID
	}
	return k
}

// repeats keeps a program that tries again and again from writing a record per
// attempt: the same file version and workload is recorded once in a while.
type repeats struct {
	mu   sync.Mutex
	seen map[repeatKey]time.Time
}

const (
	repeatEvery = 10 * time.Second
	repeatMax   = 10_000
)

func (r *repeats) again(k repeatKey) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	if t, ok := r.seen[k]; ok && now.Sub(t) < repeatEvery {
		return true
	}
	if len(r.seen) >= repeatMax {
		clear(r.seen)
	}
	r.seen[k] = now
	return false
}

func (r *repeats) forget(k repeatKey) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.seen, k)
}
