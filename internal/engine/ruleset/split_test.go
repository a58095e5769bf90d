package ruleset

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
)

func names(f *File) (out []string) {
	for _, r := range f.Rules {
		out = append(out, r.Name)
	}
	return out
}

func TestParse(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		text   string
		rules  []string
		errors []api.ImportError
	}{
		"empty":    {text: " // nothing\n"},
		"one":      {text: "rule a { condition: true }", rules: []string{"a"}},
		"modifier": {text: "private global rule a { condition: true }\nglobal\nrule b : tag { condition: a }", rules: []string{"a", "b"}},
		"braces hidden in strings, comments and regular expressions": {
			text: `rule a { strings: $a = "}\"{" $b = /a{2}\/"}/ $c = { 7D [2-4] ( 7B | ?? ) } // }
			/* } */ condition: all of them } rule b { condition: true }`,
			rules: []string{"a", "b"}},
		"byte order mark": {text: "\xef\xbb\xbfrule a { condition: true }", rules: []string{"a"}},
		"not UTF-8":       {text: "rule a { strings: $a = \"\xff\xfe\" condition: $a }", rules: []string{"a"}},
		"include refused": {
			text:   "\ninclude \"other.yar\"\nrule a { condition: true }",
			rules:  []string{"a"},
			errors: []api.ImportError{{File: "f", Line: 2, Text: `include "other.yar" refused: import the included file itself`}}},
		"NUL": {
			text:   "rule a { condition: true }\n\x00rule b { condition: true }",
			errors: []api.ImportError{{File: "f", Line: 2, Text: "the file contains a NUL byte: it is not a text file"}}},
		"unclosed rule does not swallow the next": {
			text:   "rule a { condition: true \n\nrule b { condition: true }\nrule c { condition: true }",
			rules:  []string{"b", "c"},
			errors: []api.ImportError{{File: "f", Line: 1, Rule: "a", Text: "the rule has no end: a brace, quote or comment is not closed"}}},
		"rubbish between rules": {
			text:   "rule a { condition: true }\nfoo bar\nrule b { condition: true }",
			rules:  []string{"a", "b"},
			errors: []api.ImportError{{File: "f", Line: 2, Text: `unexpected "foo" outside a rule`}}},
		"twice the same name": {
			text:   "rule a { condition: true }\nrule a { condition: false }",
			rules:  []string{"a"},
			errors: []api.ImportError{{File: "f", Line: 2, Rule: "a", Text: "a rule of this name is already in line 1"}}},
		"no name": {
			text:   "rule { condition: true }\nrule b { condition: true }",
			rules:  []string{"b"},
			errors: []api.ImportError{{File: "f", Line: 1, Text: "a rule without a name"}}},
		"ends in modifiers": {
			text:   "private",
			errors: []api.ImportError{{File: "f", Line: 1, Text: "the file ends inside a rule"}}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f, errs := Parse(Source{Name: "f", Text: []byte(test.text)})
			require.Equal(t, test.errors, errs)
			require.Equal(t, test.rules, names(f))
		})
	}
}

const linked = `import "pe"
import "math"
private rule helper { condition: filesize > 3 }
rule prefix_a { condition: helper }
rule prefix_b { strings: $helper = "x" condition: $helper }
rule user { condition: any of (prefix_*) and math.entropy(0, 5) > 2.0 }
rule plain { condition: foo.pe and true }
`

func TestReferences(t *testing.T) {
	t.Parallel()
	f, errs := Parse(Source{Name: "f", Text: []byte(linked)})
	require.Empty(t, errs)
	needs := map[string][]string{}
	for _, r := range f.Rules {
		for _, n := range r.Needs {
			needs[r.Name] = append(needs[r.Name], n.Name)
		}
	}
	require.Equal(t, map[string][]string{"prefix_a": {"helper"}, "user": {"prefix_a", "prefix_b"}}, needs)
	require.Equal(t, []string{"math"}, f.byName["user"].Modules)
	require.Empty(t, f.byName["plain"].Modules)

	keep := map[*Rule]bool{f.byName["user"]: true}
	f.Close(keep)
	require.Len(t, keep, 4)
	require.Equal(t, "\n import \"math\"\n private rule helper { condition: filesize > 3 }\n"+
		" rule prefix_a { condition: helper }\n rule prefix_b { strings: $helper = \"x\" condition: $helper }\n"+
		" rule user { condition: any of (prefix_*) and math.entropy(0, 5) > 2.0 }\n", f.Original(keep))
}
