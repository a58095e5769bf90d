package scan

import (
	"github.com/lazaret/lazaret/internal/threat"
)

// Report is the answer to an inspection.
type Report struct {
	Hash    threat.Hash // of the file; zero only if it could not be read
	Size    int64       // bytes
	Type    string      // recognised content type
	Verdict threat.Verdict
	Epoch   threat.Epoch
	// Cached says that no engine was asked.
	Cached bool
	// Count of objects: the file and its members.
	Count int
	// Objects are the file itself and its members. They are shared: do not
	// change them. Nil in a Report of Lookup whose verdict is clean.
	Objects []threat.Object
}

// Severity is the highest severity over all detections; empty without any.
func (r *Report) Severity() threat.Severity {
	var worst threat.Severity
	for i := range r.Objects {
		for _, d := range r.Objects[i].Detections {
			if d.Severity.Rank() > worst.Rank() {
				worst = d.Severity
			}
		}
	}
	return worst
}

// Has says whether any object of the report gives a reason.
func (r *Report) Has(reason string) bool {
	for i := range r.Objects {
		for _, x := range r.Objects[i].Reasons {
			if x.Code == reason {
				return true
			}
		}
	}
	return false
}

func newReport(objects []threat.Object, epoch threat.Epoch, cached bool) Report {
	r := Report{
		Hash: objects[0].Hash, Size: objects[0].Size, Type: objects[0].Type,
		Epoch: epoch, Cached: cached, Count: len(objects), Objects: objects,
	}
	for i := range objects {
		r.Verdict = threat.Worst(r.Verdict, objects[i].Verdict)
	}
	return r
}

// mark returns the report with a reason why it is not the whole truth: what was
// found stands, but nothing can be called clean.
func mark(r Report, why threat.Reason) Report {
	own := append([]threat.Object(nil), r.Objects...)
	first := &own[0]
	first.Verdict = threat.Worst(first.Verdict, threat.Partial)
	first.Reasons = append(append([]threat.Reason(nil), first.Reasons...), why)
	return newReport(own, r.Epoch, r.Cached)
}

var reasonChanged = threat.Reason{Code: threat.ReasonChanged, Text: "The file changed while it was inspected."}

// changed makes the report of a file that changed while it was inspected.
func changed(objects []threat.Object, epoch threat.Epoch) Report {
	return mark(newReport(objects, epoch, false), reasonChanged)
}

// keep says how a result may be remembered: not at all, in memory, on disk,
// and whether it depends on the limits.
func keep(objects []threat.Object) (memory, disk, limited bool) {
	memory, disk = true, true
	for i := range objects {
		o := &objects[i]
		if o.Verdict == threat.Error || o.Verdict == "" {
			return false, false, false
		}
		for _, r := range o.Reasons {
			switch r.Code {
			case threat.ReasonUnreadable, threat.ReasonChanged, threat.ReasonNoSignatures, threat.ReasonEngineUnavailable:
				return false, false, false
			case threat.ReasonLimitTime, threat.ReasonEngineTimeout, threat.ReasonEngineFailed:
				// May depend on how busy the machine was: tried again after a
				// restart, but not at every access.
				disk, limited = false, true
			case threat.ReasonTooLarge, threat.ReasonLimitDepth, threat.ReasonLimitMembers, threat.ReasonLimitTotal,
				threat.ReasonLimitRatio, threat.ReasonSparseOverlong:
				limited = true
			}
		}
	}
	return memory, disk, limited
}
