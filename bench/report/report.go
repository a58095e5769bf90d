// Package report holds what a run of the benchmarks measured and writes it for
// people, as Markdown for docs/benchmarks.md and as JSON.
package report

import (
	"fmt"
	"math"
	"slices"
	"time"
)

// Report is one run.
type Report struct {
	Machine Machine   `json:"machine"`
	Started time.Time `json:"started"`
	Parts   []*Part   `json:"parts"`
}

// Part is one subject, selected by its name.
type Part struct {
	Name     string    `json:"name"`
	Title    string    `json:"title"`
	Setup    []string  `json:"setup,omitempty"` // what was measured on, a sentence each
	Series   []*Series `json:"series"`
	Promises []Promise `json:"promises,omitempty"`
	Notes    []string  `json:"notes,omitempty"` // what the figures do not say
}

// Add appends an empty series and returns it.
func (p *Part) Add(name, command string, unit Unit) *Series {
	s := &Series{Name: name, Command: command, Unit: unit}
	p.Series = append(p.Series, s)
	return s
}

// Promise appends a promise.
func (p *Part) Promise(x Promise) { p.Promises = append(p.Promises, x) }

// Describe appends a sentence to Setup.
func (p *Part) Describe(format string, args ...any) {
	p.Setup = append(p.Setup, fmt.Sprintf(format, args...))
}

// Note appends a sentence to Notes.
func (p *Part) Note(format string, args ...any) {
	p.Notes = append(p.Notes, fmt.Sprintf(format, args...))
}

// Holds reports whether every promise of the run holds.
func (r *Report) Holds() bool {
	for _, p := range r.Parts {
		for _, x := range p.Promises {
			if !x.Holds() {
				return false
			}
		}
	}
	return true
}

// Unit of a series' values.
type Unit string

// The units.
const (
	Nanoseconds Unit = "ns"
	Seconds     Unit = "s"
	Megabytes   Unit = "MB" // 10^6 bytes
	Rate        Unit = "MB/s"
)

// Series is one thing measured several times.
type Series struct {
	Name    string    `json:"name"`
	Command string    `json:"command"` // what a person would type
	Unit    Unit      `json:"unit"`
	Values  []float64 `json:"values"` // in the order they were measured
}

// Add appends a value.
func (s *Series) Add(v float64) { s.Values = append(s.Values, v) }

// AddTime appends a duration in the series' unit.
func (s *Series) AddTime(d time.Duration) {
	if s.Unit == Nanoseconds {
		s.Add(float64(d.Nanoseconds()))
		return
	}
	s.Add(d.Seconds())
}

// Quantile returns the value below which the share q of the values lies, by
// the nearest rank; NaN without values.
func (s *Series) Quantile(q float64) float64 {
	if len(s.Values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(s.Values))
	n := int(math.Ceil(q*float64(len(sorted)))) - 1
	return sorted[min(max(n, 0), len(sorted)-1)]
}

// Median returns the middle value; NaN without values.
func (s *Series) Median() float64 {
	if n := len(s.Values); n > 0 && n%2 == 0 {
		sorted := slices.Sorted(slices.Values(s.Values))
		return (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return s.Quantile(0.5)
}

// Min returns the least value; NaN without values.
func (s *Series) Min() float64 { return s.Quantile(0) }

// Max returns the largest value; NaN without values.
func (s *Series) Max() float64 { return s.Quantile(1) }

// Promise compares a figure of ours with a peer's, or with a limit.
type Promise struct {
	Text  string  `json:"text"`
	Ours  float64 `json:"ours"`
	Peer  float64 `json:"peer"` // 0: Ours itself is compared with Limit
	Unit  Unit    `json:"unit"`
	Ratio float64 `json:"ratio"`
	Limit float64 `json:"limit"`
	// AtLeast says that Ratio must reach Limit; else it must not exceed it.
	AtLeast bool `json:"at_least"`
	// Published says that there is no limit, only a figure.
	Published bool `json:"published,omitempty"`
}

// Holds reports whether the promise is kept. A figure that is missing keeps
// none.
func (p Promise) Holds() bool {
	switch {
	case p.Published:
		return true
	case math.IsNaN(p.Ratio):
		return false
	case p.AtLeast:
		return p.Ratio >= p.Limit
	}
	return p.Ratio <= p.Limit
}

// AtMost promises that ours is at most limit times the peer's.
func AtMost(text string, ours, peer *Series, limit float64) Promise {
	return Promise{
		Text: text, Ours: ours.Median(), Peer: peer.Median(), Unit: ours.Unit,
		Ratio: ours.Median() / peer.Median(), Limit: limit,
	}
}

// Faster promises that ours takes at least limit times less than the peer.
func Faster(text string, ours, peer *Series, limit float64) Promise {
	return Promise{
		Text: text, Ours: ours.Median(), Peer: peer.Median(), Unit: ours.Unit,
		Ratio: peer.Median() / ours.Median(), Limit: limit, AtLeast: true,
	}
}
