// Package api is the wire contract between the manager, the nodes and the
// command line: JSON types, the problem document and a small client. The
// OpenAPI document beside it is generated from the manager's routes.
package api

import (
	"encoding/json"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// Page is one page of a list. NextPageToken is empty on the last page.
type Page[T any] struct {
	Items         []T    `json:"items"`
	NextPageToken string `json:"next_page_token,omitempty"`
}

// Batch is what a node uploads. ID makes retries harmless: a batch the manager
// already has is acknowledged again without effect.
type Batch struct {
	ID       string           `json:"id"` // ULID
	Sent     time.Time        `json:"sent"`
	Findings []threat.Finding `json:"findings,omitempty"`   // new or changed; the newest version wins
	Items    []QuarantineItem `json:"quarantine,omitempty"` // new or changed
	Results  []CommandResult  `json:"results,omitempty"`
	Scans    []Scan           `json:"scans,omitempty"` // progress of jobs
}

// Report is a node's state, sent every few seconds and on change; only the
// newest counts.
type Report struct {
	Version    string             `json:"version"`
	Epoch      threat.Epoch       `json:"epoch"`
	Workloads  []threat.Workload  `json:"workloads"`
	Conditions []threat.Condition `json:"conditions"`
	Protected  []string           `json:"protected"` // file systems under on-access protection
	Stats      map[string]int64   `json:"stats"`     // counters, names as in the metrics
}

// Node is a host that runs the node service.
type Node struct {
	Name     string    `json:"name"`
	LastSeen time.Time `json:"last_seen"`
	Report   Report    `json:"report"`
}

// NodeConfig is what a node needs from its manager; it carries an ETag.
type NodeConfig struct {
	Policies []json.RawMessage `json:"policies"` // policy resources as JSON, ordered by name
	Epoch    threat.Epoch      `json:"epoch"`    // bundle to activate
	Allowed  []AllowedObject   `json:"allowed"`  // objects a person allow-listed
}

// AllowedObject is an object a person declared harmless.
type AllowedObject struct {
	Hash    threat.Hash `json:"sha256"`
	Reason  string      `json:"reason"`
	By      string      `json:"by"`
	Expires time.Time   `json:"expires"`
}

// Command is what the manager asks of a node; it is sent as an SSE event whose
// id is the command's sequence number, so that a reconnecting node misses none.
type Command struct {
	ID     string          `json:"id"` // ULID; the result names it
	Verb   string          `json:"verb"`
	Args   json.RawMessage `json:"args,omitempty"`
	By     string          `json:"by"` // "user:NAME"
	Reason string          `json:"reason,omitempty"`
	Issued time.Time       `json:"issued"`
}

// Verbs of commands, with their arguments.
const (
	VerbConfig     = "config"  // the node configuration changed: fetch it
	VerbDecide     = "decide"  // DecideArgs: carry out a person's decision on a finding
	VerbRestore    = "restore" // RestoreArgs
	VerbPurge      = "purge"   // PurgeArgs: delete a quarantine item for good
	VerbExport     = "export"  // ExportArgs: upload an item as password-protected archive
	VerbScan       = "scan"    // ScanRequest with ID set
	VerbCancelScan = "cancel"  // ScanRef
)

// DecideArgs carries a decision of a person on a finding.
type DecideArgs struct {
	Finding threat.Finding `json:"finding"`
	Action  threat.Action  `json:"action"` // as in DecisionRequest
}

// RestoreArgs asks for a quarantine item to be put back.
type RestoreArgs struct {
	Item string `json:"item"`
	Path string `json:"path,omitempty"` // other target on the host; empty: where it was
}

// PurgeArgs names a quarantine item to delete.
type PurgeArgs struct {
	Item string `json:"item"`
}

// ExportArgs names a quarantine item and the upload it goes to.
type ExportArgs struct {
	Item     string `json:"item"`
	Upload   string `json:"upload"` // id under /api/v1/nodes/{node}/uploads/
	Password string `json:"password"`
}

// CommandResult answers a command.
type CommandResult struct {
	Command string          `json:"command"`
	OK      bool            `json:"ok"`
	Error   string          `json:"error,omitempty"`
	Detail  json.RawMessage `json:"detail,omitempty"`
	Done    time.Time       `json:"done"`
}

// RestoreResult is the Detail of a restore.
type RestoreResult struct {
	Path    string         `json:"path"`    // where it was put, differs on conflict
	Verdict threat.Verdict `json:"verdict"` // of the rescan
}

// QuarantineItem is one file in a node's vault.
type QuarantineItem struct {
	ID       string          `json:"id"` // ULID
	Node     string          `json:"node"`
	Finding  string          `json:"finding"` // finding id
	Object   threat.Hash     `json:"object"`
	Size     int64           `json:"size"`
	Workload threat.Workload `json:"workload"`
	Location threat.Location `json:"location"`
	UID      uint32          `json:"uid"`
	GID      uint32          `json:"gid"`
	Mode     uint32          `json:"mode"`
	ModTime  time.Time       `json:"mod_time"`
	Taken    time.Time       `json:"taken"`
	Expires  time.Time       `json:"expires"`
	State    string          `json:"state"` // see the Item* constants
}

// States of a quarantine item.
const (
	ItemStoring  = "storing"  // on its way into the vault
	ItemHeld     = "held"     // in the vault and nowhere else
	ItemRestored = "restored" // put back
	ItemPurged   = "purged"   // deleted; the record stays for a while
)

// ScanRequest describes what to scan.
type ScanRequest struct {
	ID        string   `json:"id,omitempty"` // chosen by the service if empty
	Node      string   `json:"node,omitempty"`
	Paths     []string `json:"paths,omitempty"`     // files and directories on the node
	Container string   `json:"container,omitempty"` // name or id
	Image     string   `json:"image,omitempty"`     // OCI layout directory or tar on the node
	Priority  string   `json:"priority,omitempty"`  // on-demand (default) or scheduled
	// All makes results carry every object; otherwise only those that are not clean.
	All bool `json:"all,omitempty"`
}

// ScanRef names a scan.
type ScanRef struct {
	ID string `json:"id"`
}

// Scan is a job over targets with its progress.
type Scan struct {
	ID       string      `json:"id"`
	Node     string      `json:"node,omitempty"`
	Request  ScanRequest `json:"request"`
	State    string      `json:"state"` // see the Scan* constants
	Error    string      `json:"error,omitempty"`
	Started  time.Time   `json:"started"`
	Finished *time.Time  `json:"finished,omitempty"`
	Summary  ScanSummary `json:"summary"`
}

// States of a scan.
const (
	ScanQueued    = "queued"
	ScanRunning   = "running"
	ScanDone      = "done"
	ScanCancelled = "cancelled"
	ScanFailed    = "failed"
)

// ScanSummary counts what a scan saw. Files are on the target, Objects include
// members of archives.
type ScanSummary struct {
	Files      int64 `json:"files"`
	Objects    int64 `json:"objects"`
	Bytes      int64 `json:"bytes"`
	Cached     int64 `json:"cached"` // files answered from the verdict cache
	Clean      int64 `json:"clean"`
	Suspicious int64 `json:"suspicious"`
	Malicious  int64 `json:"malicious"`
	Partial    int64 `json:"partial"`
	Errors     int64 `json:"errors"`
	Skipped    int64 `json:"skipped"` // FIFOs, sockets, devices
	// Total is an estimate of the files to see, while the scan runs; 0: unknown.
	Total int64 `json:"total,omitempty"`
	// Elapsed in nanoseconds.
	Elapsed time.Duration `json:"elapsed"`
	Epoch   threat.Epoch  `json:"epoch"`
}

// Kinds of lines.
const (
	LineObject   = "object"
	LineProgress = "progress" // on streams that ask for it
	LineSummary  = "summary"  // the last line
	LineError    = "error"    // the last line of a scan that failed; Path is the error's text
)

// ScanLine is one line of a scan's JSONL stream.
type ScanLine struct {
	Kind       string             `json:"kind"` // see the Line* constants
	Path       string             `json:"path,omitempty"`
	SHA256     threat.Hash        `json:"sha256,omitzero"`
	Size       int64              `json:"size,omitempty"`
	Type       string             `json:"type,omitempty"`
	Verdict    threat.Verdict     `json:"verdict,omitempty"`
	Reasons    []threat.Reason    `json:"reasons,omitempty"`
	Detections []threat.Detection `json:"detections,omitempty"`
	Workload   string             `json:"workload,omitempty"`
	Image      string             `json:"image,omitempty"`
	Layer      string             `json:"layer,omitempty"`
	Cached     bool               `json:"cached,omitempty"`
	Summary    *ScanSummary       `json:"summary,omitempty"`
}

// Decisions that close a finding: nothing is done about the file.
const (
	Resolve threat.Action = "resolve"
	Dismiss threat.Action = "dismiss" // a false positive
)

// DecisionRequest is a person's decision on a finding.
type DecisionRequest struct {
	Action   threat.Action `json:"action"` // quarantine, delete, kill, allow, or Resolve, Dismiss
	Reason   string        `json:"reason"`
	AllowFor string        `json:"allow_for,omitempty"` // with allow: a duration such as "720h"
}

// RestoreRequest asks for a quarantine item to be restored.
type RestoreRequest struct {
	Reason   string `json:"reason"`
	Path     string `json:"path,omitempty"`
	AllowFor string `json:"allow_for,omitempty"` // allow-list the object so long; without it a still malicious object is refused
}

// Bundle is a published set of signatures.
type Bundle struct {
	Epoch      threat.Epoch `json:"epoch"`
	Created    time.Time    `json:"created"`
	By         string       `json:"by"`
	Comment    string       `json:"comment,omitempty"`
	Rules      int          `json:"rules"`
	Hashes     int64        `json:"hashes"`
	Active     bool         `json:"active"`
	RollbackOf threat.Epoch `json:"rollback_of,omitempty"` // bundle whose content this one repeats
}

// ImportReport says what an import did, per source.
type ImportReport struct {
	Bundle   *Bundle       `json:"bundle,omitempty"` // nil on dry run
	Rules    int           `json:"rules"`
	Hashes   int64         `json:"hashes"`
	Errors   []ImportError `json:"errors,omitempty"`
	SelfTest string        `json:"self_test"` // passed, failed: why
}

// ImportError is one rule or line that was refused.
type ImportError struct {
	File string `json:"file"`
	Line int    `json:"line"`
	Rule string `json:"rule,omitempty"`
	Text string `json:"text"`
}

// Status is the answer of /api/v1/status.
type Status struct {
	Version    string             `json:"version"`
	Health     threat.Severity    `json:"health"` // worst condition, informational if none
	Conditions []threat.Condition `json:"conditions"`
	Nodes      []Node             `json:"nodes"`
	Epoch      threat.Epoch       `json:"epoch"`
	Findings   map[string]int64   `json:"findings"` // by state
	Quarantine int64              `json:"quarantine"`
}

// AuditEntry is one leaf of the audit log.
type AuditEntry struct {
	Index    int64           `json:"index"`
	Time     time.Time       `json:"time"`
	Actor    string          `json:"actor"` // user:NAME, node:NAME, system
	From     string          `json:"from,omitempty"`
	Action   string          `json:"action"` // route or event, e.g. "findings.decide"
	Target   string          `json:"target,omitempty"`
	Decision string          `json:"decision"` // allowed, denied, failed
	Reason   string          `json:"reason,omitempty"`
	Detail   json.RawMessage `json:"detail,omitempty"`
}

// PurgeRequest asks for a quarantine item to be deleted for good.
type PurgeRequest struct {
	Reason string `json:"reason"`
}

// ExportRequest asks for a quarantine item as password-protected archive.
type ExportRequest struct {
	Reason   string `json:"reason"`
	Password string `json:"password"`
}

// RollbackRequest asks for an older bundle's content to be published again.
type RollbackRequest struct {
	Epoch  threat.Epoch `json:"epoch"`
	Reason string       `json:"reason"`
}

// Accepted answers an action that a node carries out; the result appears in the
// resource and under /api/v1/commands/{id}.
type Accepted struct {
	Command string `json:"command"`
}

// Ready is the answer of /readyz. Conditions are named without their texts:
// the route is public.
type Ready struct {
	Ready      bool     `json:"ready"`
	Conditions []string `json:"conditions"` // "severity code"
}

// Version is the answer of /version.
type Version struct {
	Version string `json:"version"`
	Go      string `json:"go"`
}

// CommandState is a command with what became of it.
type CommandState struct {
	Command
	Node   string         `json:"node"`
	State  string         `json:"state"` // see the Command* constants
	Result *CommandResult `json:"result,omitempty"`
}

// States of a command.
const (
	CommandPending = "pending"
	CommandDone    = "done"
	CommandFailed  = "failed"
)

// AuditCheckpoint is the newest signed tree head.
type AuditCheckpoint struct {
	Checkpoint string `json:"checkpoint"` // signed note, see golang.org/x/mod/sumdb/note
	Key        string `json:"key"`        // verifier key
	Size       int64  `json:"size"`
}

// AuditProof proves that an entry is in the tree of a checkpoint.
type AuditProof struct {
	Index      int64    `json:"index"`
	Entry      []byte   `json:"entry"` // the leaf's exact bytes
	Proof      []string `json:"proof"` // hashes, base64, RFC 6962 audit path
	Checkpoint string   `json:"checkpoint"`
}

// Names of events on /api/v1/events.
const (
	EventFinding    = "finding"    // threat.Finding: new or changed
	EventQuarantine = "quarantine" // QuarantineItem: new or changed
	EventCommand    = "command"    // CommandState: a command was answered
	EventScan       = "scan"       // Scan: progress
	EventConditions = "conditions" // NodeConditions: a node's conditions changed
	EventPolicy     = "policy"     // PolicyResource, or its name and "deleted": true
	EventReset      = "reset"      // events between the given id and this one are gone: read the lists again
)

// NodeConditions are the conditions of a node.
type NodeConditions struct {
	Node       string             `json:"node"`
	Conditions []threat.Condition `json:"conditions"`
}

// Problem is RFC 9457 problem+json; Type is stable.
type Problem struct {
	Type      string `json:"type"` // e.g. "urn:lazaret:not-found"
	Title     string `json:"title"`
	Status    int    `json:"status"`
	Detail    string `json:"detail,omitempty"`
	RequestID string `json:"request_id,omitempty"`
}

// GetStatus returns the HTTP status; the name is the web framework's.
func (p *Problem) GetStatus() int { return p.Status }

// ContentType turns JSON's media type into that of a problem document.
func (p *Problem) ContentType(string) string { return "application/problem+json" }

// Error implements error with the sentence a user should read.
func (p *Problem) Error() string {
	if p.Detail != "" {
		return p.Detail
	}
	return p.Title
}
