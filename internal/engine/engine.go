// Package engine is the contract between the scan service and whatever
// inspects content. Engines live in sub-packages; the pipeline that runs them
// over an object and its members lives in inspect; the sandboxed processes
// that hold it in worker.
package engine

import (
	"context"
	"os"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// Content is an object's bytes in private memory, as far as they were read:
// never a mapping of a file that others can truncate (SIGBUS).
type Content struct {
	// Data holds the first bytes of the object; shorter than Size only when the
	// object is larger than the buffer limit.
	Data []byte
	// Size of the whole object in bytes.
	Size int64
	// Type is the content type that filetype recognised.
	Type string
	// SHA256 is always set; SHA1 and MD5 only if a loaded set needs them.
	SHA256 threat.Hash
	SHA1   *[20]byte
	MD5    *[16]byte
}

// Engine inspects one object's content and returns what matched. Engines are
// used from one goroutine at a time and need not be safe for concurrent use.
// An error means the object was not inspected by this engine: the caller turns
// it into a partial verdict, never into clean.
type Engine interface {
	Name() string
	Inspect(ctx context.Context, c *Content) ([]threat.Detection, error)
}

// Limits bound the inspection of one file. The zero value of a field means the
// default of DefaultLimits.
type Limits struct {
	Depth      int           `json:"depth,omitempty" yaml:"depth,omitempty"`            // archive nesting
	Members    int           `json:"members,omitempty" yaml:"members,omitempty"`        // members in all archives of one file
	MemberSize int64         `json:"member_size,omitempty" yaml:"memberSize,omitempty"` // bytes of one unpacked member
	Total      int64         `json:"total,omitempty" yaml:"total,omitempty"`            // bytes unpacked from one file
	Ratio      int64         `json:"ratio,omitempty" yaml:"ratio,omitempty"`            // unpacked:packed, checked after RatioAfter bytes
	RatioAfter int64         `json:"ratio_after,omitempty" yaml:"ratioAfter,omitempty"` // bytes
	Buffer     int64         `json:"buffer,omitempty" yaml:"buffer,omitempty"`          // bytes of one object matched by YARA
	Time       time.Duration `json:"time,omitempty" yaml:"time,omitempty"`              // wall time for one file
}

// DefaultLimits are the limits for servers and containers.
func DefaultLimits() Limits {
	return Limits{
		Depth: 8, Members: 100_000, MemberSize: 64 << 20, Total: 256 << 20,
		Ratio: 200, RatioAfter: 10 << 20, Buffer: 64 << 20, Time: 30 * time.Second,
	}
}

// WithDefaults returns the limits with zero fields replaced by the defaults.
func (l Limits) WithDefaults() Limits { return l.Or(DefaultLimits()) }

// Or returns the limits with the fields that are not set replaced by those of d.
func (l Limits) Or(d Limits) Limits {
	return Limits{
		Depth: or(l.Depth, d.Depth), Members: or(l.Members, d.Members), MemberSize: or(l.MemberSize, d.MemberSize),
		Total: or(l.Total, d.Total), Ratio: or(l.Ratio, d.Ratio), RatioAfter: or(l.RatioAfter, d.RatioAfter),
		Buffer: or(l.Buffer, d.Buffer), Time: or(l.Time, d.Time),
	}
}

func or[T int | int64 | time.Duration](v, d T) T {
	if v > 0 {
		return v
	}
	return d
}

// Result is what inspection of one file found: the file itself first, then its
// members in the order they were unpacked.
type Result struct {
	Objects []threat.Object `json:"objects"`
	// Epoch of the bundle that was used.
	Epoch threat.Epoch `json:"epoch"`
	// Elapsed is the time the worker spent.
	Elapsed time.Duration `json:"elapsed"`
}

// Verdict is the worst verdict over the file and its members.
func (r *Result) Verdict() threat.Verdict {
	var v threat.Verdict
	for i := range r.Objects {
		v = threat.Worst(v, r.Objects[i].Verdict)
	}
	return v
}

// Inspector inspects a whole file: hashing, engines and bounded unpacking. The
// worker pool implements it for the privileged side; it never parses content
// itself, and hands on no descriptor that can write. The file is read with pread
// from offset 0; its offset is not used and the caller keeps and closes it.
// Inspect always returns a result unless ctx ends or the pool is closed: a file
// that kills its worker is retried alone and then reported suspicious with
// ReasonEngineCrashed.
type Inspector interface {
	Inspect(ctx context.Context, f *os.File, limits Limits) (*Result, error)
}
