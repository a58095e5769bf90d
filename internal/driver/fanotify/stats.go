package fanotify

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// Stats are counters since the driver was made.
type Stats struct {
	Events         uint64 // waiting opens and executions that were read
	Own            uint64 // … by the service itself, allowed at once
	Trivial        uint64 // … of empty or not regular files, allowed at once
	Known          uint64 // … of known clean content, allowed at once
	Allowed        uint64
	Denied         uint64
	Timeouts       uint64 // answered by the fail mode at the deadline
	Saturated      uint64 // answered by the fail mode because every place was taken
	Panics         uint64 // of the handler
	FDErrors       uint64 // denied by the kernel because the file could not be opened
	ResponseErrors uint64 // answers that the kernel refused
	Overflows      uint64 // the kernel's queue was full
	Writes         uint64 // closed writes that were read
	Coalesced      uint64 // … of a file that was already queued
	WritesLost     uint64 // … that found the queue full
	Marked         uint64 // files that the kernel was asked to remember
	Skipped        uint64 // clean files that were not remembered
	Dirtied        uint64 // remembered files that changed through a mapping
	Remembered     uint64 // files with a mark now, at most
	Inflight       uint64 // accesses that are being decided now
}

type counters struct {
	events, own, trivial, known, allowed, denied, timeouts, saturated, panics,
	fdErrors, responseErrors, overflows, writes, coalesced, writesLost,
	marked, skipped, dirtied atomic.Uint64
}

// Stats returns the counters.
func (d *Driver) Stats() Stats {
	c := &d.count
	d.marks.mu.Lock()
	remembered := len(d.marks.table)
	d.marks.mu.Unlock()
	return Stats{
		Events: c.events.Load(), Own: c.own.Load(), Trivial: c.trivial.Load(), Known: c.known.Load(),
		Allowed: c.allowed.Load(), Denied: c.denied.Load(), Timeouts: c.timeouts.Load(),
		Saturated: c.saturated.Load(), Panics: c.panics.Load(), FDErrors: c.fdErrors.Load(),
		ResponseErrors: c.responseErrors.Load(), Overflows: c.overflows.Load(), Writes: c.writes.Load(),
		Coalesced: c.coalesced.Load(), WritesLost: c.writesLost.Load(), Marked: c.marked.Load(),
		Skipped: c.skipped.Load(), Dirtied: c.dirtied.Load(),
		Remembered: uint64(remembered), Inflight: uint64(len(d.places)),
	}
}

// Condition codes of this package.
const (
	ConditionUnavailable = "fanotify_unavailable"   // no permission events at all
	ConditionNoOverlay   = "fanotify_overlay_only"  // containers need marks on each overlay
	ConditionNoIgnore    = "fanotify_no_remember"   // the kernel cannot remember clean files
	ConditionNoFDError   = "fanotify_no_fd_error"   // denials for lack of descriptors are hard to see
	ConditionMmapUnseen  = "mmap_writes_unseen"     // no Watcher
	ConditionTimeouts    = "file_decisions_late"    // accesses were answered by the fail mode
	ConditionFDErrors    = "file_events_denied"     // the kernel denied accesses by itself
	ConditionLost        = "file_events_lost"       // events were lost
	ConditionPanics      = "file_handler_panicked"  // a bug in the decision
	ConditionResponse    = "file_responses_refused" // answers did not reach the kernel
)

// calm is how long a trouble must not recur before its condition is cleared.
const calm = 10 * time.Minute

type trouble struct {
	condition threat.Condition
	count     func(Stats) uint64
	seen      uint64
	last      time.Time
}

// report raises conditions for counters that grew, away from the reader.
func (d *Driver) report(ctx context.Context) error {
	troubles := []trouble{
		{threat.Condition{Code: ConditionTimeouts, Severity: threat.High,
			Text:   fmt.Sprintf("Accesses were answered by the fail mode, without inspection, because no decision came within %s.", d.cfg.Deadline),
			Advice: "Look for a slow disk, an overloaded host or a hanging engine; raise the deadline if files are large."},
			func(s Stats) uint64 { return s.Timeouts + s.Saturated }, 0, time.Time{}},
		{threat.Condition{Code: ConditionFDErrors, Severity: threat.High,
			Text:   "The kernel denied accesses because it could not open the file for inspection.",
			Advice: "Raise LimitNOFILE of the service or lower the number of events in flight."},
			func(s Stats) uint64 { return s.FDErrors }, 0, time.Time{}},
		{threat.Condition{Code: ConditionLost, Severity: threat.Medium,
			Text:   "File events were lost; files that were written meanwhile are inspected when they are opened next.",
			Advice: "Scan the protected file systems (lazaret scan) to find what lies there unopened; give the host more processors if it repeats."},
			func(s Stats) uint64 { return s.Overflows + s.WritesLost }, 0, time.Time{}},
		{threat.Condition{Code: ConditionPanics, Severity: threat.High,
			Text:   "Deciding about a file failed inside the service; the access was answered by the fail mode.",
			Advice: "Please report the log line \"handler panicked\"."},
			func(s Stats) uint64 { return s.Panics }, 0, time.Time{}},
		{threat.Condition{Code: ConditionResponse, Severity: threat.High,
			Text:   "The kernel refused answers about file accesses.",
			Advice: "Please report this with the kernel's version."},
			func(s Stats) uint64 { return s.ResponseErrors }, 0, time.Time{}},
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			s := d.Stats()
			for i := range troubles {
				troubles[i].check(d, s, now)
			}
		}
	}
}

func (t *trouble) check(d *Driver, s Stats, now time.Time) {
	n := t.count(s)
	switch {
	case n > t.seen:
		t.seen, t.last = n, now
		d.cfg.Conditions.Raise(t.condition)
	case !t.last.IsZero() && now.Sub(t.last) > calm:
		t.last = time.Time{}
		d.cfg.Conditions.Clear(t.condition.Code)
	}
}
