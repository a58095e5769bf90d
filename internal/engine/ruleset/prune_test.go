package ruleset

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPrune(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ condition, other, imports string }{
		"right side of or": {
			`any of them or pe.imphash() == "x"`, `any of them or false`, ""},
		"inside parentheses and over lines": {
			"uint8(0) == 1 and (\n$a or\n pe.imports(\"a\") or hash.md5(0, 4) == \"x\")",
			"uint8(0) == 1 and (\n$a or\n false or hash.md5(0, 4) == \"x\")", ` import "hash"`},
		"a whole conjunction": {
			`$a or (uint16(0) == 0x5A4D and pe.machine == 1)`, `$a or false`, ""},
		"loops": {
			`$a or for any s in pe.sections : (s.name == "b")`, `$a or false`, ""},
		"operands with strings stay": {
			`$a or (pe.machine == 1 and $b)`, `$a or (false and $b)`, ""},
		"nothing under not": {
			`$a and not (pe.machine == 1 or $b)`, `$a and not (pe.machine == 1 or $b)`, ` import "pe"`},
		"constants stay": {
			`$a and pe.MACHINE_AMD64 == filesize`, `$a and pe.MACHINE_AMD64 == filesize`, ` import "pe"`},
		"not equal is no string": {
			`$a or pe.machine != 3`, `$a or false`, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			const imports = "import \"pe\" import \"hash\"\n"
			const head = " rule x { strings: $a = \"a\" $b = \"b\" condition: "
			f, errs := Parse(Source{Name: "f", Text: []byte(imports + head[1:] + test.condition + " }")})
			require.Empty(t, errs)
			keep := map[*Rule]bool{f.byName["x"]: true}
			require.Equal(t, test.imports+"\n"+head+test.other+" }\n", f.Text(keep, Other))
			require.Contains(t, f.Original(keep), test.condition)
		})
	}
}
