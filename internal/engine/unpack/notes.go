package unpack

import (
	"fmt"

	"github.com/lazaret/lazaret/internal/threat"
)

// notes collects reasons, one per code with the first member as example, so
// that an archive with thousands of encrypted members has one reason.
type notes struct {
	list []note
}

type note struct {
	threat.Reason
	more int
}

func (n *notes) add(member string, f *Failure) {
	for i := range n.list {
		if n.list[i].Code == f.Code {
			if member != "" {
				n.list[i].more++
			}
			return
		}
	}
	r := f.Reason
	if member != "" {
		r.Text = member + ": " + r.Text
	}
	n.list = append(n.list, note{Reason: r})
}

// merge adds the notes of another walk.
func (n *notes) merge(other *notes) {
	for _, o := range other.list {
		n.add("", &Failure{o.Reason})
	}
}

func (n *notes) reasons() []threat.Reason {
	if len(n.list) == 0 {
		return nil
	}
	out := make([]threat.Reason, len(n.list))
	for i, x := range n.list {
		out[i] = x.Reason
		if x.more > 0 {
			out[i].Text += fmt.Sprintf(" (and %d more)", x.more)
		}
	}
	return out
}
