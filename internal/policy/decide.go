package policy

import (
	"slices"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// Input is what Decide looks at.
type Input struct {
	Workload   threat.Workload
	Verdict    threat.Verdict
	Severity   threat.Severity // the worst over Detections
	Location   threat.Location
	Hash       threat.Hash
	Detections []threat.Detection
	Allowed    bool      // a person allow-listed the object
	Now        time.Time // for the expiry of exclusions; zero means time.Now
}

// Decision is what a policy wants done.
type Decision struct {
	// Policy is the name of the policy that decided.
	Policy string
	// Actions in the order they are carried out. Never changed by anybody: they
	// may be the policy's own list.
	Actions []threat.Action
	// Mode is Enforce if the actions are carried out; with Monitor they are only
	// recorded as what would have been done.
	Mode Mode
	// Excluded is the exclusion that exempted the object, nil if none did.
	Excluded *Exclusion
	// Governor bounds carrying the actions out.
	Governor Governor
	// Why says in words how the actions were chosen.
	Why string
}

// Denies reports whether the access at hand must be refused. Files that are
// about to be quarantined or deleted are refused as well.
func (d *Decision) Denies() bool {
	return d.Mode == Enforce && slices.ContainsFunc(d.Actions, func(a threat.Action) bool {
		return a == threat.Deny || a == threat.Quarantine || a == threat.Delete
	})
}

var (
	allowOnly = []threat.Action{threat.Allow}
	denyOnly  = []threat.Action{threat.Deny}
)

// Decide applies a policy to what inspection found. A clean object costs no
// allocation.
func Decide(p Policy, in Input) Decision { return p.Decide(&in) }

// Decide is the package's Decide without copies, for the path every access
// takes.
func (p *Policy) Decide(in *Input) Decision {
	d := Decision{Policy: p.Metadata.Name, Mode: p.Spec.Mode, Actions: allowOnly, Governor: p.Spec.Governor}
	switch {
	case p.Spec.Mode == Off:
		d.Why = "the policy is off"
		return d
	case in.Verdict == threat.Clean:
		d.Why = "clean"
		return d
	case in.Allowed:
		d.Why = "a person allow-listed the object"
		return d
	}
	severity, excluded := p.exclude(in)
	if excluded != nil {
		d.Excluded, d.Why = excluded, "excluded by "+excluded.Owner+": "+excluded.Reason
		return d
	}
	switch in.Verdict {
	case threat.Malicious, threat.Suspicious:
		if severity == "" { // e.g. content that crashed the engine
			severity = severityOf(in.Verdict)
		}
		d.Why = "severity " + string(severity)
		if actions := p.Spec.Actions.For(severity); len(actions) > 0 {
			d.Actions = actions
		}
	case threat.Partial:
		d.Why = "not inspected completely: partial is " + string(p.Spec.Partial)
		if p.Spec.Partial == ChooseDeny {
			d.Actions = denyOnly
		}
	default: // an error, or nothing known before the deadline
		d.Why = "not inspected: failMode is " + string(p.Spec.FailMode)
		if p.Spec.FailMode == FailClosed {
			d.Actions = denyOnly
		}
	}
	return d
}

func severityOf(v threat.Verdict) threat.Severity {
	if v == threat.Malicious {
		return threat.High
	}
	return threat.Medium
}

// exclude returns the exclusion that exempts the object, or the severity of
// what is not exempt.
func (p *Policy) exclude(in *Input) (threat.Severity, *Exclusion) {
	if len(p.Spec.Exclusions) == 0 {
		return in.Severity, nil
	}
	now := in.Now
	if now.IsZero() {
		now = time.Now()
	}
	var exempt []bool // parallel to in.Detections
	left := len(in.Detections)
	for i := range p.Spec.Exclusions {
		e := &p.Spec.Exclusions[i]
		if !e.Expires.After(now) || !e.covers(in) {
			continue
		}
		if len(e.Signatures) == 0 {
			return in.Severity, e
		}
		if exempt == nil {
			exempt = make([]bool, len(in.Detections))
		}
		for j := range in.Detections {
			if !exempt[j] && e.matchSignature(in.Detections[j].Signature) {
				exempt[j] = true
				left--
			}
		}
		// With a detection for every verdict, no detections left means excluded.
		if left == 0 && len(in.Detections) > 0 {
			return in.Severity, e
		}
	}
	if left == len(in.Detections) {
		return in.Severity, nil
	}
	var worst threat.Severity
	for j := range in.Detections {
		if s := in.Detections[j].Severity; !exempt[j] && s.Rank() > worst.Rank() {
			worst = s
		}
	}
	return worst, nil
}

// covers reports whether the exclusion's paths and hashes match.
func (e *Exclusion) covers(in *Input) bool {
	if len(e.Paths)+len(e.Hashes)+len(e.Signatures) == 0 {
		return false // Validate refuses it; never read it as "everything"
	}
	if len(e.Hashes) > 0 && (in.Hash.IsZero() || !slices.Contains(e.Hashes, in.Hash)) {
		return false
	}
	return len(e.Paths) == 0 || slices.ContainsFunc(e.Paths, func(pattern string) bool {
		return matchPath(pattern, in.Location.Path)
	})
}

func (e *Exclusion) matchSignature(name string) bool {
	return slices.ContainsFunc(e.Signatures, func(pattern string) bool { return matchText(pattern, name) })
}
