// Package policy holds policy resources: which workloads they select, what is
// inspected there, and what happens per severity. Everything in it is a pure
// function of its input; carrying actions out is the response's work.
package policy

import (
	"time"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// Values of the apiVersion and kind keys.
const (
	APIVersion = "lazaret/v1"
	Kind       = "Policy"
)

// DefaultName is the policy that covers every workload no other one selects. A
// resource of that name replaces the built-in one; it must not select.
const DefaultName = "default"

// Policy is one resource. Its JSON form has the same keys as its YAML form.
type Policy struct {
	APIVersion string   `yaml:"apiVersion"`
	Kind       string   `yaml:"kind"`
	Metadata   Metadata `yaml:"metadata"`
	Spec       Spec     `yaml:"spec"`
}

// Metadata names a policy.
type Metadata struct {
	Name   string            `yaml:"name"`
	Labels map[string]string `yaml:"labels,omitempty"`
}

// Name returns the policy's name.
func (p *Policy) Name() string { return p.Metadata.Name }

// Spec is what a policy says. Keys that are left out have the values of
// Default.
type Spec struct {
	// Priority decides between policies that select the same workload: the
	// higher wins, then the more specific, then the name that sorts first.
	Priority int      `yaml:"priority,omitempty"`
	Selector Selector `yaml:"selector,omitempty"`
	Mode     Mode     `yaml:"mode"`
	OnAccess OnAccess `yaml:"onAccess"`
	Actions  Actions  `yaml:"actions"`
	// Partial says what happens to an open of what could not be inspected
	// completely.
	Partial Choice `yaml:"partial"`
	// FailMode says what happens to an open that could not be judged before
	// Deadline, or whose inspection ended in an error.
	FailMode   FailMode      `yaml:"failMode"`
	Deadline   time.Duration `yaml:"deadline"`
	Limits     engine.Limits `yaml:"limits,omitempty"`
	Exclusions []Exclusion   `yaml:"exclusions,omitempty"`
	Governor   Governor      `yaml:"governor"`
}

// Mode says whether a policy acts.
type Mode string

// The modes.
const (
	Enforce Mode = "enforce" // inspect and act
	Monitor Mode = "monitor" // inspect, report what would be done (shadow mode)
	Off     Mode = "off"     // do not inspect on access, do nothing
)

// OnAccess says which accesses are inspected.
type OnAccess struct {
	Open  bool `yaml:"open"`
	Exec  bool `yaml:"exec"`
	Write bool `yaml:"write"` // when a file that was open for writing is closed
}

// Actions lists what is done per severity. An empty list means: record the
// finding, nothing more; informational detections never lead to an action.
type Actions struct {
	Critical []threat.Action `yaml:"critical"`
	High     []threat.Action `yaml:"high"`
	Medium   []threat.Action `yaml:"medium"`
	Low      []threat.Action `yaml:"low"`
}

// For returns the actions of a severity.
func (a *Actions) For(s threat.Severity) []threat.Action {
	switch s {
	case threat.Critical:
		return a.Critical
	case threat.High:
		return a.High
	case threat.Medium:
		return a.Medium
	case threat.Low:
		return a.Low
	}
	return nil
}

// Choice is allow or deny.
type Choice string

// The choices.
const (
	ChooseAllow Choice = "allow"
	ChooseDeny  Choice = "deny"
)

// FailMode says what an unanswered question means.
type FailMode string

// The fail modes.
const (
	FailOpen   FailMode = "open"   // allow
	FailClosed FailMode = "closed" // deny
)

// Exclusion exempts objects from actions. Within a list one match is enough;
// all lists that are given must match. Reason, Owner and Expires are mandatory.
type Exclusion struct {
	// Paths are patterns over absolute paths as the workload sees them: * and ?
	// stay inside a path element, ** spans elements.
	Paths []string `yaml:"paths,omitempty" json:"paths,omitempty"`
	// Hashes are SHA-256 in hexadecimal.
	Hashes []threat.Hash `yaml:"hashes,omitempty" json:"hashes,omitempty"`
	// Signatures are patterns over signature names; * spans everything. Only the
	// detections that match are exempt: what else was found in the object counts.
	Signatures []string  `yaml:"signatures,omitempty" json:"signatures,omitempty"`
	Reason     string    `yaml:"reason" json:"reason"`
	Owner      string    `yaml:"owner" json:"owner"`
	Expires    time.Time `yaml:"expires" json:"expires"`
}

// Governor bounds automatic actions; what exceeds it waits for a person.
type Governor struct {
	// ActionsPerMinute is how many automatic actions this policy may cause on a
	// node per minute.
	ActionsPerMinute int `yaml:"actionsPerMinute"`
	// MaxWorkloads is the number of workloads with the object from which on
	// acting on it waits.
	MaxWorkloads int `yaml:"maxWorkloads"`
}

// Default returns the built-in policy: serious threats are denied and
// quarantined, medium ones denied, low ones recorded; what cannot be inspected
// in time is allowed.
func Default() Policy {
	return Policy{
		APIVersion: APIVersion, Kind: Kind, Metadata: Metadata{Name: DefaultName},
		Spec: Spec{
			Mode:     Enforce,
			OnAccess: OnAccess{Open: true, Exec: true, Write: true},
			Actions: Actions{
				Critical: []threat.Action{threat.Deny, threat.Quarantine},
				High:     []threat.Action{threat.Deny, threat.Quarantine},
				Medium:   []threat.Action{threat.Deny},
				Low:      []threat.Action{threat.Allow},
			},
			Partial: ChooseAllow, FailMode: FailOpen, Deadline: 5 * time.Second,
			Governor: Governor{ActionsPerMinute: 30, MaxWorkloads: 5},
		},
	}
}
