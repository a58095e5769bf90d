// Package sarif writes scan results in the Static Analysis Results Interchange
// Format 2.1.0 (OASIS standard), which code hosts and IDEs show.
package sarif

import (
	"maps"
	"net/url"
	"strings"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

// Log is a SARIF log with one run.
type Log struct {
	Schema  string `json:"$schema"`
	Version string `json:"version"`
	Runs    []*Run `json:"runs"`

	rules     map[string]int
	artifacts map[string]int // by URI and digest
}

// Run is one scan.
type Run struct {
	Tool        Tool         `json:"tool"`
	Invocations []Invocation `json:"invocations"`
	Artifacts   []Artifact   `json:"artifacts"`
	Results     []Result     `json:"results"`
}

// Tool describes Lazaret and the signatures that matched.
type Tool struct {
	Driver Driver `json:"driver"`
}

// Driver is the tool's component that found the results.
type Driver struct {
	Name           string `json:"name"`
	Version        string `json:"version"`
	InformationURI string `json:"informationUri"`
	Rules          []Rule `json:"rules"`
}

// Rule is a signature.
type Rule struct {
	ID               string         `json:"id"`
	ShortDescription Message        `json:"shortDescription"`
	Properties       map[string]any `json:"properties,omitempty"`
}

// Message is text for people.
type Message struct {
	Text string `json:"text"`
}

// Invocation says how the scan went; what was not inspected is a notification.
type Invocation struct {
	ExecutionSuccessful        bool           `json:"executionSuccessful"`
	ToolExecutionNotifications []Notification `json:"toolExecutionNotifications,omitempty"`
}

// Notification is a condition met during the scan.
type Notification struct {
	Descriptor Descriptor `json:"descriptor"`
	Level      string     `json:"level"`
	Message    Message    `json:"message"`
	Locations  []Location `json:"locations,omitempty"`
}

// Descriptor names the kind of a notification.
type Descriptor struct {
	ID string `json:"id"`
}

// Artifact is a file in which something was found.
type Artifact struct {
	Location ArtifactLocation  `json:"location"`
	Length   int64             `json:"length"`
	Hashes   map[string]string `json:"hashes,omitempty"`
}

// Result is one detection.
type Result struct {
	RuleID     string            `json:"ruleId"`
	RuleIndex  int               `json:"ruleIndex"`
	Level      string            `json:"level"`
	Message    Message           `json:"message"`
	Locations  []Location        `json:"locations"`
	Properties map[string]string `json:"properties,omitempty"` // workload, image, layer
}

// Location is where a result is.
type Location struct {
	PhysicalLocation PhysicalLocation `json:"physicalLocation"`
}

// PhysicalLocation is a file.
type PhysicalLocation struct {
	ArtifactLocation ArtifactLocation `json:"artifactLocation"`
}

// ArtifactLocation is a file's URI reference and its place among the artifacts.
type ArtifactLocation struct {
	URI   string `json:"uri"`
	Index *int   `json:"index,omitempty"`
}

// New returns an empty log.
func New(version string) *Log {
	return &Log{
		Schema:  "https://json.schemastore.org/sarif-2.1.0.json",
		Version: "2.1.0",
		Runs: []*Run{{
			Tool: Tool{Driver{
				Name: "Lazaret", Version: version, InformationURI: "https://github.com/lazaret/lazaret", Rules: []Rule{},
			}},
			Invocations: []Invocation{{ExecutionSuccessful: true}},
			Artifacts:   []Artifact{}, Results: []Result{},
		}},
		rules: map[string]int{}, artifacts: map[string]int{},
	}
}

// Add adds an object; clean ones leave no trace.
func (l *Log) Add(o *api.ScanLine) {
	run := l.Runs[0]
	location := Location{PhysicalLocation{ArtifactLocation{URI: uri(o.Path)}}}
	for _, r := range o.Reasons {
		level := "warning"
		if o.Verdict == threat.Error {
			level = "error"
		}
		run.Invocations[0].ToolExecutionNotifications = append(run.Invocations[0].ToolExecutionNotifications, Notification{
			Descriptor: Descriptor{ID: r.Code}, Level: level, Message: Message{or(r.Text, r.Code)}, Locations: []Location{location},
		})
	}
	if len(o.Detections) == 0 {
		return
	}
	index := l.artifact(o, location.PhysicalLocation.ArtifactLocation)
	location.PhysicalLocation.ArtifactLocation.Index = &index
	for i := range o.Detections {
		d := &o.Detections[i]
		run.Results = append(run.Results, Result{
			RuleID: d.Signature, RuleIndex: l.rule(d), Level: level(d.Severity),
			Message: Message{d.Signature + " in " + o.Path}, Locations: []Location{location},
			Properties: given(map[string]string{"workload": o.Workload, "image": o.Image, "layer": o.Layer}),
		})
	}
}

// Finish completes the log after the last object.
func (l *Log) Finish(s *api.ScanSummary) {
	l.Runs[0].Invocations[0].ExecutionSuccessful = s.Errors == 0
}

// Fail completes the log of a scan that ended early.
func (l *Log) Fail(err error) {
	i := &l.Runs[0].Invocations[0]
	i.ExecutionSuccessful = false
	i.ToolExecutionNotifications = append(i.ToolExecutionNotifications, Notification{
		Descriptor: Descriptor{ID: "scan_failed"}, Level: "error", Message: Message{err.Error()},
	})
}

func or(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// given keeps the entries that have a value; nil if none has.
func given(m map[string]string) map[string]string {
	maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
	if len(m) == 0 {
		return nil
	}
	return m
}

// artifact returns the index of an object among the artifacts, which are unique
// (3.14.15): overlapping roots show a file twice.
func (l *Log) artifact(o *api.ScanLine, at ArtifactLocation) int {
	key := at.URI + "\n" + o.SHA256.String()
	if i, ok := l.artifacts[key]; ok {
		return i
	}
	run := l.Runs[0]
	a := Artifact{Location: at, Length: o.Size}
	if !o.SHA256.IsZero() {
		a.Hashes = map[string]string{"sha-256": o.SHA256.String()}
	}
	i := len(run.Artifacts)
	run.Artifacts = append(run.Artifacts, a)
	l.artifacts[key] = i
	return i
}

func (l *Log) rule(d *threat.Detection) int {
	if i, ok := l.rules[d.Signature]; ok {
		return i
	}
	driver := &l.Runs[0].Tool.Driver
	i := len(driver.Rules)
	p := map[string]any{"engine": d.Engine, "severity": d.Severity}
	for k, v := range map[string]string{"technique": d.Technique, "author": d.Author, "reference": d.Reference} {
		if v != "" {
			p[k] = v
		}
	}
	driver.Rules = append(driver.Rules, Rule{ID: d.Signature, ShortDescription: Message{or(d.Description, d.Signature)}, Properties: p})
	l.rules[d.Signature] = i
	return i
}

func level(s threat.Severity) string {
	switch s {
	case threat.Critical, threat.High:
		return "error"
	case threat.Medium, threat.Low:
		return "warning"
	}
	return "note"
}

// uri makes an RFC 3986 reference of a path: each element is escaped, and
// absolute paths get the file scheme.
func uri(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	if !strings.HasPrefix(path, "/") {
		// A colon in the first element would look like a scheme (RFC 3986, 4.2).
		parts[0] = strings.ReplaceAll(parts[0], ":", "%3A")
	}
	s := strings.Join(parts, "/")
	if strings.HasPrefix(s, "/") {
		return "file://" + s
	}
	return s
}
