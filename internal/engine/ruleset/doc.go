// Package ruleset reads YARA sources far enough to handle each rule on its own:
// it splits a file into rules without compiling it, says which rules need which
// others and which modules, and decides for which content classes a rule can
// match at all. It is pure Go and never matches anything itself; libyara does.
//
// A file's rules are selected by blanking: the text of everything else is
// replaced by its line breaks, so that a compiler's line numbers stay those of
// the file.
package ruleset

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/lazaret/lazaret/api"
)

// MaxSource is the size in bytes of the largest source file that is read.
const MaxSource = 32 << 20

// Source is one file of YARA rules as its author wrote it.
type Source struct {
	Name string `json:"name"` // shown in errors
	Text []byte `json:"text"`
}

// File is a source split into its rules.
type File struct {
	Name    string
	Imports []Import
	Rules   []*Rule

	text    []byte
	byName  map[string]*Rule
	globals []*Rule
	verdict [numClasses]map[*Rule]value
}

// Import is an import statement.
type Import struct {
	Module string
	Line   int
	span
}

// Rule is one rule of a file.
type Rule struct {
	Name    string
	Line    int // of its first keyword
	EndLine int // of its closing brace
	Private bool
	Global  bool
	// Modules are the imported modules the rule's text mentions.
	Modules []string
	// Needs are the rules of the same file that its text mentions.
	Needs []*Rule

	span
	condStart int // where the condition's text begins
	words     []word
	condition *condition // nil: not understood, evaluates to unknown
}

// span is a range of bytes of the file.
type span struct{ start, end int }

// Parse splits a source. What cannot be read is reported with its line and
// left out; the rest of the file is kept.
func Parse(s Source) (*File, []api.ImportError) {
	f := &File{Name: s.Name, text: bytes.TrimPrefix(s.Text, []byte("\xef\xbb\xbf")), byName: map[string]*Rule{}}
	if len(s.Text) > MaxSource {
		return f, []api.ImportError{f.fault(1, "", fmt.Sprintf("the file has %d bytes, more than %d", len(s.Text), MaxSource))}
	}
	// libyara takes C strings: everything behind a NUL byte would be dropped
	// without a word.
	if i := bytes.IndexByte(f.text, 0); i >= 0 {
		return f, []api.ImportError{f.fault(1+bytes.Count(f.text[:i], []byte("\n")), "", "the file contains a NUL byte: it is not a text file")}
	}
	errs := f.split()
	f.link()
	for _, r := range f.Rules {
		r.condition = parseCondition(string(f.text[r.start:r.end]))
	}
	return f, errs
}

func (f *File) fault(line int, rule, text string) api.ImportError {
	return api.ImportError{File: f.Name, Line: line, Rule: rule, Text: text}
}

// link finds out which rules and modules each rule mentions. Words that only
// look like a reference do no harm: the rule is kept along.
func (f *File) link() {
	modules := map[string]bool{}
	for _, i := range f.Imports {
		modules[i.Module] = true
	}
	for n, r := range f.Rules {
		seen := map[string]bool{r.Name: true}
		for _, w := range r.words {
			if seen[w.text] && !w.wildcard {
				continue
			}
			if modules[w.text] && !seen[w.text] {
				r.Modules = append(r.Modules, w.text)
			}
			seen[w.text] = true
			if w.wildcard {
				for _, other := range f.Rules[:n] {
					if strings.HasPrefix(other.Name, w.text) {
						r.Needs = append(r.Needs, other)
					}
				}
			} else if other := f.byName[w.text]; other != nil && other != r {
				r.Needs = append(r.Needs, other)
			}
		}
	}
}

// Close adds to keep every rule that its rules need.
func (f *File) Close(keep map[*Rule]bool) {
	var add func(*Rule)
	add = func(r *Rule) {
		keep[r] = true
		for _, n := range r.Needs {
			if !keep[n] {
				add(n)
			}
		}
	}
	for _, r := range f.Rules {
		if keep[r] {
			add(r)
		}
	}
}

// Text returns the file as the rules of a class need it: only the kept rules,
// with parts of conditions replaced that the class decides, and the imports
// they still use. Everything else is blanked; lines stay where they were.
func (f *File) Text(keep map[*Rule]bool, c Class) string {
	return f.assemble(keep, func(r *Rule) ([]edit, []string) { return f.prune(r, c) })
}

// Original returns the kept rules as they were written, with their imports.
func (f *File) Original(keep map[*Rule]bool) string {
	return f.assemble(keep, func(r *Rule) ([]edit, []string) { return nil, r.Modules })
}

func (f *File) assemble(keep map[*Rule]bool, reduce func(*Rule) ([]edit, []string)) string {
	var edits []edit
	used := map[string]bool{}
	for _, r := range f.Rules {
		if !keep[r] {
			continue
		}
		changes, modules := reduce(r)
		for _, m := range modules {
			used[m] = true
		}
		edits = append(edits, edit{span: span{r.start, r.end}})
		edits = append(edits, changes...)
	}
	for _, i := range f.Imports {
		if used[i.Module] {
			edits = append(edits, edit{span: i.span})
		}
	}
	slices.SortStableFunc(edits, func(a, b edit) int { return a.start - b.start })
	return f.render(edits)
}

// render copies the spans of edits without text and puts the text of the
// others in place of theirs.
func (f *File) render(edits []edit) string {
	var b strings.Builder
	pos, end := 0, 0 // pos: next byte of the file; end: of the span being copied
	blank := func(to int) {
		for range bytes.Count(f.text[pos:to], []byte("\n")) {
			b.WriteByte('\n')
		}
		pos = to
	}
	finish := func() {
		b.Write(f.text[pos:end])
		pos = end
	}
	for _, e := range edits {
		if e.text == "" {
			finish()
			blank(e.start)
			b.WriteByte(' ')
			end = e.end
			continue
		}
		b.Write(f.text[pos:e.start])
		pos = e.start
		b.WriteString(e.text)
		blank(e.end)
	}
	finish()
	b.WriteByte('\n')
	return b.String()
}
