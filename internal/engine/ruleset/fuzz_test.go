package ruleset

import (
	"bytes"
	"testing"
)

// FuzzParse checks that no text makes the parser panic and that selected
// texts keep their lines.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		linked,
		`rule a { strings: $a = "}\"{" $b = /a{2}\/"}/ $c = { 7D [2-4] ( 7B | ?? ) } condition: all of them }`,
		"import \"pe\" rule x { strings: $a = \"MZ\" condition: $a at 0 or (pe.machine == 1 and uint16be(0) == 3) }",
		"rule a {\nrule b { condition: for any i in (0..pe.number_of_sections) : (uint8(i) == -1) }",
		"private global rule a { condition: not defined elf.type } include \"x\"",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		file, _ := Parse(Source{Name: "f", Text: text})
		for _, r := range file.Rules {
			if r.start < 0 || r.end <= r.start || r.end > len(file.text) || r.Line > r.EndLine {
				t.Fatalf("rule %q spans %d to %d", r.Name, r.start, r.end)
			}
		}
		for _, c := range Classes {
			keep := file.Select(c, func(*Rule) bool { return true })
			out := file.Text(keep, c)
			if n := bytes.Count(file.text, []byte("\n")); bytes.Count([]byte(out), []byte("\n")) > n+1 {
				t.Fatalf("%d lines became more: %q", n, out)
			}
		}
	})
}
