// Package guard decides about accesses: who opens what, what is known about
// the content, what the policy says. It answers the file-system driver, makes
// the findings and hands them to the response.
package guard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

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
	pidfds   atomic.Bool   // the kernel names processes by descriptor
	books    chan struct{} // taken by records under way
}

// Stats counts what the guard answered.
type Stats struct {
	Denied, Timeouts, Threats, Unattributed atomic.Int64
}

// New returns a guard with the built-in default policy.
func New(c Config) *Guard {
	g := &Guard{Config: c, repeats: repeats{seen: map[repeatKey]time.Time{}}, books: make(chan struct{}, maxBooks)}
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
		if report, err = g.inspect(ctx, ev, w, &p); err != nil {
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
	if err == nil && g.genuine(ev) {
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

// genuine reports whether the event's pid still names the process that made
// it. Asked after something was read by that pid, it says whether what was read
// is about that process: nobody waits for the answer to a written file, so its
// pid may be another process's by now.
func (g *Guard) genuine(ev *event.File) bool {
	if ev.PIDFD >= 0 {
		g.pidfds.Store(true)
		return alive(ev.PIDFD)
	}
	return ev.Op != event.Write || !g.pidfds.Load()
}

// alive reports whether a pidfd's process, perhaps a zombie, still has its pid.
func alive(pidfd int) bool {
	return !errors.Is(unix.PidfdSendSignal(pidfd, 0, nil, 0), unix.ESRCH)
}

// longest bounds an inspection that goes on after its opener got an answer.
const longest = time.Minute

// until is the time to answer by: an answer that comes after the end of ctx is
// replaced by the driver's fail mode, whatever the policy and the verdict say.
func until(ctx context.Context, part time.Duration) time.Time {
	now := time.Now()
	end, ok := ctx.Deadline()
	if !ok {
		return now.Add(longest)
	}
	return end.Add(-end.Sub(now) / part)
}

// inspect waits for the verdict until the policy's deadline. The inspection
// itself goes on after that, so that the next access finds its result; a threat
// found too late is still made a finding and acted upon.
func (g *Guard) inspect(ctx context.Context, ev *event.File, w threat.Workload, p *policy.Policy) (scan.Report, error) {
	end := until(ctx, 10)
	if own := time.Now().Add(p.Spec.Deadline); own.Before(end) {
		end = own
	}
	wait, cancel := context.WithDeadline(ctx, end)
	defer cancel()
	type result struct {
		report scan.Report
		err    error
	}
	done := make(chan result, 1)
	background := context.WithoutCancel(ctx)
	go func() {
		own, cancel := context.WithTimeout(background, longest)
		defer cancel()
		r, err := g.Scans.Inspect(own, scan.Request{File: ev.File, Key: ev.Key, Priority: scan.OnAccess, Limits: p.Spec.Limits, Volatile: ev.Unstable})
		done <- result{r, err}
	}()
	select {
	case r := <-done:
		return r.report, r.err
	case <-wait.Done():
	}
	later := detach(ev)
	go func() {
		defer later.release()
		defer g.rescue(ctx)
		if r := <-done; r.err == nil && r.report.Verdict.Threat() {
			g.record(background, later.File, w, p, &r.report, tooLate)
		}
	}()
	return scan.Report{}, wait.Err()
}

const tooLate = "the access was answered by the fail mode before the verdict was known"

// detached is an event that outlives its handler, whose descriptors are the
// driver's: it has a pidfd of its own and no file.
type detached struct{ *event.File }

func detach(ev *event.File) detached {
	c := *ev
	c.File, c.PIDFD = nil, -1
	if ev.PIDFD >= 0 {
		if fd, err := unix.FcntlInt(uintptr(ev.PIDFD), unix.F_DUPFD_CLOEXEC, 0); err == nil {
			c.PIDFD = fd
		}
	}
	return detached{&c}
}

func (d detached) release() {
	if d.PIDFD >= 0 {
		_ = unix.Close(d.PIDFD) // a pidfd holds nothing back
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

// maxBooks bounds the records under way: what a process shows of itself and of
// its mounts can be made to hang, and a disk can be slow.
const maxBooks = 512

// judge applies the policy to a verdict that is not clean. Finding out where
// the file is and storing the finding take their time, which whoever opens the
// file may stretch; what is denied is denied in time all the same.
func (g *Guard) judge(ctx context.Context, ev *event.File, w threat.Workload, p *policy.Policy, r scan.Report) fanotify.Answer {
	wait, cancel := context.WithDeadline(ctx, until(ctx, 5))
	defer cancel()
	var decision policy.Decision
	select {
	case g.books <- struct{}{}:
		own, done := detach(ev), make(chan policy.Decision, 1)
		background := context.WithoutCancel(ctx)
		go func() {
			defer func() { <-g.books; own.release() }()
			defer g.rescue(ctx)
			done <- g.record(background, own.File, w, p, &r, "")
		}()
		select {
		case decision = <-done:
		case <-wait.Done():
			decision = g.blind(w, p, &r)
		}
	case <-wait.Done():
		decision = g.blind(w, p, &r)
		if r.Verdict.Threat() {
			g.unrecorded(ctx, errors.New("too many findings at once"))
		}
	}
	if decision.Denies() && ev.Op != event.Write {
		g.stats.Denied.Add(1)
		return deny
	}
	return allow
}

// rescue keeps a bug in the making of a finding from ending the service; the
// access is decided without it.
func (g *Guard) rescue(ctx context.Context) {
	if p := recover(); p != nil {
		g.unrecorded(ctx, fmt.Errorf("handler panicked: %v", p))
	}
}

// blind decides without knowing where the file is: no exclusion by path holds.
func (g *Guard) blind(w threat.Workload, p *policy.Policy, r *scan.Report) policy.Decision {
	var c Case
	g.fill(&c, time.Time{}, "", threat.Location{}, w, p, r)
	return c.Decision
}

// record makes the finding of a threat, or of what is denied because it could
// not be inspected, and returns what the policy decided. It may take long.
func (g *Guard) record(ctx context.Context, ev *event.File, w threat.Workload, p *policy.Policy, r *scan.Report, note string) policy.Decision {
	c := g.newCase(ev, w, p, r)
	if note != "" {
		c.Decision.Why += "; " + note
	}
	g.Scans.Remember(r.Hash, c.Finding.Location)
	worth := r.Verdict.Threat() || (c.Decision.Denies() && ev.Op != event.Write)
	if worth && c.Decision.Excluded == nil && !g.Allowed(r.Hash) && !g.repeats.again(repeated(c)) {
		if r.Verdict.Threat() {
			g.stats.Threats.Add(1)
		}
		if err := g.Cases.Open(ctx, *c); err != nil {
			g.repeats.forget(repeated(c)) // the next access records it
			g.unrecorded(ctx, err)
		}
	}
	return c.Decision
}

func (g *Guard) unrecorded(ctx context.Context, err error) {
	g.Logger.ErrorContext(ctx, "finding was not recorded", slog.Any("error", err))
	g.Conditions.Raise(threat.Condition{
		Code: "finding_not_recorded", Severity: threat.Critical,
		Text:   "A finding could not be stored: " + err.Error(),
		Advice: "Free space in the state directory; access to the file stays denied meanwhile.",
	})
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
		g.record(ctx, ev, w, &p, &report, "")
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
