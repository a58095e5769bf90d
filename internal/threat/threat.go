// Package threat holds the words every other package speaks: verdicts,
// detections, objects, locations, findings and decisions. It has no behaviour
// beyond order and text form, and imports nothing of the project.
package threat

import (
	"encoding/hex"
	"fmt"
	"time"
)

// Verdict says what inspection concluded about an object.
type Verdict string

// The verdicts; Worst orders them. "Not inspected" is never clean: what could
// not be read completely is Partial with its reasons.
const (
	Clean      Verdict = "clean"
	Partial    Verdict = "partial"
	Suspicious Verdict = "suspicious"
	Malicious  Verdict = "malicious"
	Error      Verdict = "error"
)

// rank orders verdicts so that Worst can compare them: an error is worse than
// partial (nothing is known) and less than a detection.
func (v Verdict) rank() int {
	switch v {
	case Clean:
		return 1
	case Partial:
		return 2
	case Error:
		return 3
	case Suspicious:
		return 4
	case Malicious:
		return 5
	}
	return 0
}

// Worst returns the more serious of two verdicts; the empty verdict is the
// least serious.
func Worst(a, b Verdict) Verdict {
	if b.rank() > a.rank() {
		return b
	}
	return a
}

// Threat reports whether something was detected: suspicious or malicious.
func (v Verdict) Threat() bool { return v == Suspicious || v == Malicious }

// Severity grades a detection. The names are those of OCSF.
type Severity string

// The severities, least first.
const (
	Informational Severity = "informational"
	Low           Severity = "low"
	Medium        Severity = "medium"
	High          Severity = "high"
	Critical      Severity = "critical"
)

// Severities lists all severities, least first.
var Severities = []Severity{Informational, Low, Medium, High, Critical}

// Rank orders severities: 1 (informational) to 5 (critical), 0 if unknown.
func (s Severity) Rank() int {
	for i, x := range Severities {
		if x == s {
			return i + 1
		}
	}
	return 0
}

// Verdict maps a detection's severity to a verdict: high and critical are
// malicious, low and medium suspicious, informational changes nothing.
func (s Severity) Verdict() Verdict {
	switch s {
	case High, Critical:
		return Malicious
	case Low, Medium:
		return Suspicious
	}
	return Clean
}

// Hash is an object's name: the SHA-256 of its content.
type Hash [32]byte

// String returns 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// IsZero reports whether the hash was never set.
func (h Hash) IsZero() bool { return h == Hash{} }

// MarshalText implements encoding.TextMarshaler; the zero hash is empty text.
func (h Hash) MarshalText() ([]byte, error) {
	if h.IsZero() {
		return nil, nil
	}
	return []byte(h.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (h *Hash) UnmarshalText(b []byte) error {
	if len(b) == 0 {
		*h = Hash{}
		return nil
	}
	x, err := ParseHash(string(b))
	if err != nil {
		return err
	}
	*h = x
	return nil
}

// ParseHash reads 64 hexadecimal digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	if len(s) != 64 {
		return h, fmt.Errorf("parsing hash %q: want 64 hexadecimal digits, got %d characters", s, len(s))
	}
	if _, err := hex.Decode(h[:], []byte(s)); err != nil {
		return h, fmt.Errorf("parsing hash %q: %w", s, err)
	}
	return h, nil
}

// Epoch numbers the active signature bundle. A verdict is valid for one epoch.
type Epoch uint64

// Detection is one signature matching one object or behaviour.
type Detection struct {
	// Signature is the signature's name, e.g. "Lazaret.Test.EICAR".
	Signature string `json:"signature"`
	// Engine that matched: "hash", "yara", "clamd".
	Engine string `json:"engine"`
	// Severity of the signature.
	Severity Severity `json:"severity"`
	// Technique is a MITRE ATT&CK technique id such as "T1505.003", may be empty.
	Technique string `json:"technique,omitempty"`
	// Description is one sentence for people, may be empty.
	Description string `json:"description,omitempty"`
	// Author and Reference are the rule's own, kept because licences ask for it.
	Author    string `json:"author,omitempty"`
	Reference string `json:"reference,omitempty"`
}

// Reason explains a verdict that is partial or error.
type Reason struct {
	// Code is stable: see the Reason* constants.
	Code string `json:"code"`
	// Text is one clear sentence.
	Text string `json:"text"`
}

// Reason codes.
const (
	ReasonEncrypted         = "encrypted"          // content is encrypted and no key is known
	ReasonTooLarge          = "too_large"          // larger than the size limit
	ReasonLimitDepth        = "limit_depth"        // nested deeper than the limit
	ReasonLimitMembers      = "limit_members"      // more members than the limit
	ReasonLimitTotal        = "limit_total"        // unpacked size over the limit
	ReasonLimitRatio        = "limit_ratio"        // compression ratio over the limit
	ReasonLimitTime         = "limit_time"         // inspection time over the limit
	ReasonDamaged           = "damaged"            // the container format is broken
	ReasonUnknownMethod     = "unknown_method"     // a compression or container method we do not know
	ReasonUnreadable        = "unreadable"         // reading failed (permissions, I/O error)
	ReasonChanged           = "changed"            // content changed while it was inspected
	ReasonEngineCrashed     = "engine_crashed"     // the content crashed the engine, twice
	ReasonEngineTimeout     = "engine_timeout"     // the watchdog ended the engine
	ReasonEngineFailed      = "engine_failed"      // an engine could not inspect the content
	ReasonEngineUnavailable = "engine_unavailable" // no engine process could be started or asked
	ReasonNotRegular        = "not_regular"        // FIFO, socket, device: never opened
	ReasonNoSignatures      = "no_signatures"      // no bundle is active
	ReasonSparseOverlong    = "sparse_overlong"    // sparse beyond what is inspected
)

// Location is where an object was seen.
type Location struct {
	Node     string `json:"node,omitempty"`
	Workload string `json:"workload,omitempty"` // workload id
	// Path as the workload sees it; inside archives joined by "!/". Bytes that
	// are not UTF-8 are escaped as \xNN.
	Path string `json:"path"`
	// HostPath is the backing file on the node, if known.
	HostPath string `json:"host_path,omitempty"`
	// Layer names the image layer or "upper" for a container's own layer.
	Layer string `json:"layer,omitempty"`
	Image string `json:"image,omitempty"`
}

// Process is the program that touched an object.
type Process struct {
	PID     int    `json:"pid"`
	Start   uint64 `json:"start,omitempty"` // clock ticks since boot, /proc/PID/stat field 22
	Exe     string `json:"exe,omitempty"`
	Command string `json:"command,omitempty"`
	UID     uint32 `json:"uid"`
}

// Action is something that is done about a finding.
type Action string

// The actions that a policy or a person can choose.
const (
	Allow      Action = "allow"
	Deny       Action = "deny"
	Quarantine Action = "quarantine"
	Delete     Action = "delete"
	Kill       Action = "kill"
)

// Decision records who chose an action, when and why.
type Decision struct {
	Action Action    `json:"action"`
	By     string    `json:"by"`               // "policy:NAME", "user:NAME" or "owner:WORKLOAD"
	Reason string    `json:"reason"`           // why, in words
	At     time.Time `json:"at"`               // when decided
	Result string    `json:"result"`           // see the Result* constants
	Detail string    `json:"detail,omitempty"` // the error or what was done
}

// The results of a decision.
const (
	ResultDone    = "done"
	ResultFailed  = "failed"
	ResultPending = "pending" // waits for a person, or for the node to carry it out
	ResultWould   = "would"   // not carried out: the policy only monitors
)

// State of a finding's triage.
type State string

// The states.
const (
	Open      State = "open"      // nobody looked, nothing waits
	Waiting   State = "waiting"   // an action waits for a person (blast radius, ask)
	Contained State = "contained" // denied and quarantined, killed or deleted
	Resolved  State = "resolved"  // a person closed it
	Dismissed State = "dismissed" // a person called it a false positive
)

// Finding is the record people triage: detections at a location of a workload.
type Finding struct {
	ID         string      `json:"id"` // ULID
	Time       time.Time   `json:"time"`
	Node       string      `json:"node"`
	Workload   Workload    `json:"workload"`
	Object     Hash        `json:"object"`
	Size       int64       `json:"size"`
	Location   Location    `json:"location"`
	Member     string      `json:"member,omitempty"` // path inside the archive that matched
	Process    *Process    `json:"process,omitempty"`
	Trigger    string      `json:"trigger"` // "open", "exec", "write", "scan"
	Verdict    Verdict     `json:"verdict"`
	Severity   Severity    `json:"severity"`
	Detections []Detection `json:"detections"`
	Reasons    []Reason    `json:"reasons,omitempty"`
	Epoch      Epoch       `json:"epoch"`
	Policy     string      `json:"policy"` // policy that decided
	State      State       `json:"state"`
	Decisions  []Decision  `json:"decisions"`
	Count      int         `json:"count"` // how often this was seen again
	LastSeen   time.Time   `json:"last_seen"`
	VaultID    string      `json:"vault_id,omitempty"` // quarantine item
}

// Kind of a workload.
type Kind string

// The workload kinds.
const (
	KindHost      Kind = "host"
	KindContainer Kind = "container"
	KindVM        Kind = "vm"
)

// Workload is what is protected: a container, a virtual machine or the host.
type Workload struct {
	ID     string            `json:"id"` // "host", "container/<id>", "vm/<uuid>"
	Kind   Kind              `json:"kind"`
	Name   string            `json:"name"`
	Tenant string            `json:"tenant,omitempty"`
	Labels map[string]string `json:"labels,omitempty"`
	Node   string            `json:"node,omitempty"`
	// For containers:
	Runtime   string `json:"runtime,omitempty"` // containerd, docker, podman, cgroup
	Image     string `json:"image,omitempty"`
	Pod       string `json:"pod,omitempty"` // namespace/name
	Namespace string `json:"namespace,omitempty"`
}

// Object is file content together with what inspection said about it. Members
// of archives are objects too, listed flat.
type Object struct {
	Hash Hash  `json:"sha256"`
	Size int64 `json:"size"`
	// Type is the recognised content type, e.g. "elf", "zip", "script", "data".
	Type string `json:"type,omitempty"`
	// Member is the path inside the inspected file, parts joined by "!/"; empty
	// for the file itself.
	Member     string      `json:"member,omitempty"`
	Verdict    Verdict     `json:"verdict"`
	Reasons    []Reason    `json:"reasons,omitempty"`
	Detections []Detection `json:"detections,omitempty"`
}

// Condition is something a user must know about the product's own state:
// protection is degraded, signatures are old, events were lost. The same code
// and text appear in CLI, API, console, metrics and /readyz.
type Condition struct {
	Code     string    `json:"code"` // stable, e.g. "fanotify_unavailable"
	Severity Severity  `json:"severity"`
	Text     string    `json:"text"`   // what is wrong, one sentence
	Advice   string    `json:"advice"` // what to do about it
	Since    time.Time `json:"since"`
}
