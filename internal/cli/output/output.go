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
	"unicode"
	"unicode/utf8"

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
		return fmt.Errorf("%q is none of %s", s, strings.Join(append(Formats[:len(Formats):len(Formats)], string(SARIF)), ", "))
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

// Clean makes text of strangers harmless on a terminal: control characters,
// C1 controls included, invisible format characters (among them the
// bidirectional overrides that make a name look like another), line and
// paragraph separators, and bytes that are not UTF-8 are escaped.
func Clean(s string) string {
	if plain(s) || (utf8.ValidString(s) && !strings.ContainsFunc(s, hidden)) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case !hidden(r):
			b.WriteRune(r)
		case r < 0x100:
			fmt.Fprintf(&b, `\x%02x`, r)
		case r < 0x10000:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			fmt.Fprintf(&b, `\U%08x`, r)
		}
		i += n
	}
	return b.String()
}

// plain reports whether s is printable ASCII, as most text is.
func plain(s string) bool {
	for i := range len(s) {
		if s[i] < 0x20 || s[i] > 0x7e {
			return false
		}
	}
	return true
}

func hidden(r rune) bool { return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp) }

// Valid escapes the bytes that are not UTF-8 as \xNN and leaves the rest: the
// form in which results name files.
func Valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		if r == utf8.RuneError && n == 1 {
			fmt.Fprintf(&b, `\x%02x`, s[i])
		} else {
			b.WriteString(s[i : i+n])
		}
		i += n
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
		_, whole := v.(json.Marshaler) // such as json.RawMessage, a slice of bytes
		if l := reflect.ValueOf(v); l.Kind() == reflect.Slice && !whole {
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
