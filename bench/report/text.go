package report

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strconv"
	"strings"
	"text/tabwriter"
)

// JSON writes the whole run with all values.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// Text writes a part for people.
func (p *Part) Text(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n== %s: %s\n", p.Name, p.Title)
	for _, s := range p.Setup {
		fmt.Fprintf(&b, "   %s\n", s)
	}
	b.WriteByte('\n')
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "n\tmin\tmedian\tmax\t\t  measurement")
	for _, s := range p.Series {
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t  %s\n", len(s.Values), number(s.Min()), number(s.Median()), number(s.Max()), s.Unit, s.Name)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	b.WriteString("\ncommands:\n")
	for _, s := range p.Series {
		if s.Command != "" {
			fmt.Fprintf(&b, "  %s:\n      %s\n", s.Name, s.Command)
		}
	}
	b.WriteString("\npromises:\n")
	for _, x := range p.Promises {
		fmt.Fprintf(&b, "  %s\n", x)
	}
	for _, s := range p.Notes {
		fmt.Fprintf(&b, "note: %s\n", s)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// String says the figures, the ratio and whether it holds.
func (p Promise) String() string {
	figures := number(p.Ours) + " " + string(p.Unit)
	ratio := ""
	if p.Peer != 0 {
		figures += " against " + number(p.Peer) + " " + string(p.Unit)
		ratio = ", ratio " + number(p.Ratio)
	}
	if p.Published {
		return fmt.Sprintf("%s: %s%s (published)", p.Text, figures, ratio)
	}
	return fmt.Sprintf("%s: %s%s, %s: %s", p.Text, figures, ratio, p.limit(), p.verdict())
}

func (p Promise) limit() string {
	if p.Published {
		return "published"
	}
	word := "at most "
	if p.AtLeast {
		word = "at least "
	}
	s := word + number(p.Limit)
	if p.Peer == 0 {
		s += " " + string(p.Unit)
	}
	return s
}

func (p Promise) verdict() string {
	if p.Holds() {
		return "holds"
	}
	return "FAILS"
}

// number writes three significant digits, and all digits before the point.
func number(v float64) string {
	switch a := math.Abs(v); {
	case math.IsNaN(v):
		return "none"
	case math.IsInf(v, 0):
		return "unlimited"
	case a >= 100 || v == math.Trunc(v):
		return strconv.FormatFloat(v, 'f', 0, 64)
	case a >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'g', 3, 64)
}
