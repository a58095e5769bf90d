// Package output writes results in the formats every command offers. Results
// go to standard output and nothing else does.
package output

import (
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"text/tabwriter"

	"go.yaml.in/yaml/v3"
)

// Format of a result.
type Format string

// The formats.
const (
	Table Format = "table" // for people
	JSON  Format = "json"  // one document
	JSONL Format = "jsonl" // one document per item of a list
	YAML  Format = "yaml"
	SARIF Format = "sarif" // scans only
)

// Formats lists the formats every command knows.
var Formats = []string{string(Table), string(JSON), string(JSONL), string(YAML)}

// String implements pflag.Value.
func (f *Format) String() string { return string(*f) }

// Type implements pflag.Value.
func (f *Format) Type() string { return "format" }

// Set implements pflag.Value.
func (f *Format) Set(s string) error {
	if !slices.Contains(Formats, s) && s != string(SARIF) {
		return fmt.Errorf("%q is none of %s", s, strings.Join(Formats, ", "))
	}
	*f = Format(s)
	return nil
}

// Writer draws tables: columns are separated by tabs and aligned.
type Writer struct{ w *tabwriter.Writer }

// Row writes one row; control characters in values are escaped, so that a file
// name cannot move the cursor.
func (w *Writer) Row(cells ...any) {
	for i, c := range cells {
		if i > 0 {
			fmt.Fprint(w.w, "\t")
		}
		fmt.Fprint(w.w, Clean(fmt.Sprint(c)))
	}
	fmt.Fprintln(w.w)
}

// Line writes text that is not part of the columns.
func (w *Writer) Line(format string, args ...any) {
	w.w.Flush()
	fmt.Fprintln(w.w, Clean(fmt.Sprintf(format, args...)))
	w.w.Flush()
}

// Clean escapes control characters, C1 controls included, and the bidirectional
// overrides that can make a name look like another.
func Clean(s string) string {
	bad := func(r rune) bool {
		return r < 0x20 || (r >= 0x7f && r < 0xa0) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069)
	}
	if !strings.ContainsFunc(s, bad) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if bad(r) {
			if r < 0x100 {
				fmt.Fprintf(&b, `\x%02x`, r)
			} else {
				fmt.Fprintf(&b, `\u%04x`, r)
			}
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Print writes v in the format; table draws it if the format is Table.
func Print(to io.Writer, f Format, v any, table func(*Writer)) error {
	switch f {
	case Table:
		w := &Writer{w: tabwriter.NewWriter(to, 0, 4, 2, ' ', 0)}
		table(w)
		return w.w.Flush()
	case JSON:
		e := json.NewEncoder(to)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	case JSONL:
		e := json.NewEncoder(to)
		e.SetEscapeHTML(false)
		if l := reflect.ValueOf(v); l.Kind() == reflect.Slice {
			for i := range l.Len() {
				if err := e.Encode(l.Index(i).Interface()); err != nil {
					return err
				}
			}
			return nil
		}
		return e.Encode(v)
	case YAML:
		return printYAML(to, v)
	}
	return fmt.Errorf("output %s is for scans only", f)
}

// printYAML goes through JSON so that both have the same keys, and keeps their
// order.
func printYAML(to io.Writer, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	var n yaml.Node
	if err := yaml.Unmarshal(b, &n); err != nil {
		return err
	}
	block(&n)
	e := yaml.NewEncoder(to)
	e.SetIndent(2)
	if err := e.Encode(&n); err != nil {
		return err
	}
	return e.Close()
}

// block turns JSON's flow style into YAML's block style.
func block(n *yaml.Node) {
	n.Style &^= yaml.FlowStyle
	if n.Kind == yaml.ScalarNode && n.Tag == "!!str" {
		n.Style = 0
	}
	for _, c := range n.Content {
		block(c)
	}
}
