package guard

import (
	"context"
	"strings"
	"time"

	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload"
)

// newCase puts together what is known about an access that is not clean: who,
// where, what, and what the policy says. Its process usually still waits.
func (g *Guard) newCase(ev *event.File, w threat.Workload, p *policy.Policy, r *scan.Report) *Case {
	place, _ := g.locate(ev, w)
	c := &Case{Key: ev.Key, PID: ev.PID, Place: place}
	g.fill(c, ev.Time, string(ev.Op), place.Location(w), w, p, r)
	if process, err := g.Who.Describe(ev.PID); err == nil && g.genuine(ev) {
		c.Finding.Process = &process
	} else {
		c.PID = 0 // by now it may be another process's
	}
	return c
}

// fill completes a case: what inspection found, where, and what the policy says.
func (g *Guard) fill(c *Case, at time.Time, trigger string, l threat.Location, w threat.Workload, p *policy.Policy, r *scan.Report) {
	c.Finding = threat.Finding{
		Time: at, LastSeen: at, Node: g.Node, Workload: w, Object: r.Hash, Size: r.Size,
		Location: l, Trigger: trigger, Verdict: r.Verdict, Severity: grade(r),
		Epoch: r.Epoch, Policy: p.Name(), State: threat.Open, Count: 1,
	}
	describe(&c.Finding, r.Objects)
	c.Decision = p.Decide(&policy.Input{
		Workload: w, Verdict: r.Verdict, Severity: c.Finding.Severity, Location: l,
		Hash: r.Hash, Detections: c.Finding.Detections, Allowed: g.Allowed(r.Hash), Now: time.Now(),
	})
}

// grade is a finding's severity: that of its detections, or one that fits the
// verdict where there are none, as for content that crashed the engine.
func grade(r *scan.Report) threat.Severity {
	switch s := r.Severity(); {
	case s != "":
		return s
	case r.Verdict == threat.Malicious:
		return threat.High
	case r.Verdict == threat.Suspicious:
		return threat.Medium
	}
	return threat.Low // denied for what is not known, not for what is
}

// describe copies detections and reasons of all objects of a file into a
// finding; its member is the first that matched.
func describe(f *threat.Finding, objects []threat.Object) {
	seen := map[string]bool{}
	for i := range objects {
		o := &objects[i]
		for _, d := range o.Detections {
			if f.Member == "" && o.Member != "" {
				f.Member = o.Member
			}
			if !seen[d.Engine+d.Signature] {
				seen[d.Engine+d.Signature] = true
				f.Detections = append(f.Detections, d)
			}
		}
		f.Reasons = append(f.Reasons, o.Reasons...)
	}
	if len(f.Reasons) > maxReasons {
		f.Reasons = f.Reasons[:maxReasons]
	}
	f.Member = strings.ToValidUTF8(f.Member, "\uFFFD")
}

// maxReasons bounds what an archive with thousands of unreadable members adds.
const maxReasons = 20

// Hit makes a finding of a file that a scan found. What a scan of the host's
// files sees belongs to the workload of its location.
func (g *Guard) Hit(ctx context.Context, h scan.Hit) error {
	w := g.Who.Host()
	if h.Location.Workload != "" && h.Location.Workload != w.ID {
		w = threat.Workload{ID: h.Location.Workload, Kind: threat.KindContainer, Name: h.Location.Workload, Image: h.Location.Image, Node: g.Node}
		for _, known := range g.Who.Workloads() {
			if known.ID == w.ID {
				w = known
			}
		}
	}
	p, _ := g.policies.Load().For(w)
	h.Location.Node = g.Node
	c := Case{Key: h.Key, Place: workload.Place{
		Path: h.Location.Path, HostPath: h.Location.HostPath, Layer: h.Location.Layer,
		Writable: h.Location.Layer == "" || h.Location.Layer == workload.LayerUpper,
	}}
	g.fill(&c, time.Now().UTC(), "scan", h.Location, w, &p, &h.Report)
	if c.Decision.Excluded != nil || g.Allowed(h.Report.Hash) {
		return nil
	}
	return g.Cases.Open(ctx, c)
}
