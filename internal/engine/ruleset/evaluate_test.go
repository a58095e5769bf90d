package ruleset

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// possible parses a file with the condition in a rule x and returns the
// classes it can match, as their initials.
func possible(t *testing.T, text string) string {
	t.Helper()
	f, errs := Parse(Source{Name: "f", Text: []byte(text)})
	require.Empty(t, errs)
	require.NotNil(t, f.byName["x"].condition, "the condition was not understood")
	out := ""
	for _, c := range Classes {
		if f.Possible(f.byName["x"], c) {
			out += c.String()[:1]
		}
	}
	return out
}

func TestPossible(t *testing.T) {
	t.Parallel()
	const some = `strings: $a = "abc" $mz = "MZ" $mzw = "MZ" wide $mzn = "mz" nocase $hex = { 4D 5A 90 } $half = { 4D 5? }
		$not = { ~4D 5A } $elf = { 7F 45 4C 46 02 } $esc = "\x7fELF" condition: `
	tests := map[string]string{
		"true":  "oep",
		"false": "",
		// magic numbers
		"uint16(0) == 0x5A4D":                               "p",
		"uint16be(0) == 0x4d5a":                             "p",
		"int16(0) == 0x5A4D":                                "p",
		"uint32(0) == 0x464c457f":                           "e",
		"uint32be(0) == 0x7f454c46":                         "e",
		"0x464c457f == (uint32(0))":                         "e",
		"uint16(0) == 0x457f":                               "oe", // 7F 45 XX is no ELF magic
		"uint8(0) == 0x7f":                                  "oe",
		"uint8(0) == 0x4d":                                  "op",
		"uint8(1) == 0x5a":                                  "op",
		"uint32(0) == 0x00905A4D":                           "p",
		"uint32(0) == 0x04034b50":                           "o",
		"uint16(0) != 0x5A4D":                               "oe",
		"not uint16(0) == 0x5A4D":                           "oe",
		"uint16(0) == 0x5A4D or uint32(0) == 0x464c457f":    "ep",
		"uint16(0) == 0x5A4D and uint32(0) == 0x464c457f":   "",
		"uint16(0) + 0 == 0x5A4D":                           "op", // a sum may still be known
		"uint8(0) == 0x1ff":                                 "",
		"uint8(-1) == 0x4d":                                 "oep",
		"uint16(uint32(0x3C)) == 0x4550":                    "oep",
		"uint16(0) & 0xff == 0x4d":                          "op",
		"uint16(0) < 0x5000":                                "oe",
		"filesize > 10 and (uint16(0) == 0x5A4D)":           "p",
		"for any i in (0..10) : (uint16(0) == 0x5A4D)":      "p",
		"for all i in (0..10) : (uint16(0) == 0x5A4D)":      "oep",
		"for any i in (0..10) : (uint16(i) == 0x5A4D)":      "oep",
		"defined uint16(0) and not defined uint16(0) == 10": "o",
		// strings
		some + "any of them":     "oep",
		some + "$mz at 0":        "p",
		some + "$mzw at 0":       "oep",
		some + "$mzn at 0":       "oep",
		some + "$hex at 0":       "p",
		some + "$half at 0":      "op",
		some + "$not at 0":       "op", // "anything but" is not decided
		some + "$elf at 0":       "e",
		some + "$esc at 0":       "e",
		some + "$a at 0":         "o",
		some + "$a at 2":         "op",
		some + "not $mz at 0":    "oep",
		some + "$mz at filesize": "oep",
		some + "for any of them : ($ at 0) and $mz at 0": "p",
	}
	for condition, want := range tests {
		t.Run(condition, func(t *testing.T) {
			t.Parallel()
			body := condition
			if !strings.Contains(body, "condition:") {
				body = "condition: " + body
			}
			require.Equal(t, want, possible(t, "rule x { "+body+" }"))
		})
	}
}

func TestModules(t *testing.T) {
	t.Parallel()
	const imports = "import \"pe\" import \"elf\" import \"dotnet\" import \"hash\"\n"
	tests := map[string]string{
		"pe.number_of_sections == 3":                             "p",
		"pe.number_of_sections != 3":                             "p",
		"not pe.number_of_sections == 3":                         "p",
		"pe.is_pe":                                               "p",
		"not pe.is_pe":                                           "oep",
		"pe.MACHINE_AMD64 == 0x8664":                             "oep",
		"pe.machine == pe.MACHINE_AMD64":                         "p",
		"pe.characteristics & pe.DLL":                            "p",
		"pe.imphash() == \"x\"":                                  "p",
		"pe.imports(\"a\", \"b\")":                               "p",
		"pe.version_info[\"a\"] contains \"b\"":                  "p",
		"pe.sections[0].name == \"UPX0\"":                        "p",
		"hash.md5(pe.rich_signature.clear_data) == \"x\"":        "p",
		"hash.md5(0, filesize) == \"x\"":                         "oep",
		"for any s in pe.sections : (s.name == \".text\")":       "p",
		"for all s in pe.sections : (s.name == \".text\")":       "oep",
		"for any i in (0..pe.number_of_sections - 1) : (i == 1)": "p",
		"not for any i in (0..pe.number_of_sections) : (i == 1)": "oep",
		"elf.type == elf.ET_EXEC":                                "e",
		"elf.machine == elf.EM_386 or pe.machine == 1":           "ep",
		"dotnet.is_dotnet":                                       "p",
		"dotnet.typelib == \"a\"":                                "p",
		"filesize > 4 or pe.is_pe":                               "oep",
	}
	for condition, want := range tests {
		t.Run(condition, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, want, possible(t, imports+"rule x { condition: "+condition+" }"))
		})
	}
}

func TestOtherRules(t *testing.T) {
	t.Parallel()
	tests := map[string]string{
		"private rule is_pe { condition: uint16(0) == 0x5A4D } rule x { condition: is_pe and filesize > 1 }":   "p",
		"private rule is_pe { condition: uint16(0) == 0x5A4D } rule x { condition: not is_pe }":                "oe",
		"global rule only { condition: uint32(0) == 0x464c457f } rule x { condition: filesize > 1 }":           "e",
		"global private rule no { condition: uint16(0) != 0x5A4D } rule x { condition: uint8(0) == 0x4d }":     "o",
		"rule i { condition: uint16(0) == 0x5A4D } rule x { condition: for any i in (1..2) : (i == 2) and i }": "p",
		"rule i { condition: uint16(0) == 0x5A4D } rule x { condition: for any i in (1..2) : (i == 2) }":       "oep",
	}
	for text, want := range tests {
		t.Run(text, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, want, possible(t, text))
		})
	}
}

func TestUnparsableConditionGoesEverywhere(t *testing.T) {
	t.Parallel()
	for _, condition := range []string{"with a = 1 : (uint16(0) == 0x5A4D and a)", "uint16(0) == 0x5A4D and any of (y*)"} {
		f, errs := Parse(Source{Name: "f", Text: []byte("rule y { condition: true } rule x { condition: " + condition + " }")})
		require.Empty(t, errs)
		require.Nil(t, f.byName["x"].condition)
		for _, c := range Classes {
			require.True(t, f.Possible(f.byName["x"], c))
		}
	}
}

func TestSelect(t *testing.T) {
	t.Parallel()
	f, errs := Parse(Source{Name: "f", Text: []byte(`
global rule big { condition: filesize > 10 }
private rule unused { condition: true }
private rule mz { condition: uint16(0) == 0x5A4D }
rule dos { condition: mz }
rule script { condition: uint16be(0) == 0x2321 and not mz }
rule bad { condition: mz }
`)})
	require.Empty(t, errs)
	selected := func(c Class) (out []string) {
		keep := f.Select(c, func(r *Rule) bool { return r.Name != "bad" })
		for _, r := range f.Rules {
			if keep[r] {
				out = append(out, r.Name)
			}
		}
		return out
	}
	require.Equal(t, []string{"big", "mz", "script"}, selected(Other))
	require.Equal(t, []string{"big"}, selected(ELF))
	require.Equal(t, []string{"big", "mz", "dos"}, selected(PE))
}

func TestClassOf(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]Class{"": Other, "M": Other, "MZ": PE, "MZ\x90": PE, "\x7fEL": Other,
		"\x7fELF": ELF, "ZM": Other, "#!": Other} {
		require.Equal(t, want, ClassOf([]byte(data)), "%q", data)
	}
}
