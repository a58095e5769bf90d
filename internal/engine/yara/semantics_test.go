package yara

import (
	"fmt"
	"sort"
	"strings"
	"testing"

	goyara "github.com/hillu/go-yara/v4"
	"github.com/stretchr/testify/require"
)

// whole compiles text as libyara does by itself, without our splitting, and
// returns the public rules that match data.
func whole(t *testing.T, text, data string) (names []string) {
	t.Helper()
	c, err := newCompiler()
	require.NoError(t, err)
	defer c.Destroy()
	require.NoError(t, c.AddString(text, ""), text)
	rules, err := c.GetRules()
	require.NoError(t, err)
	defer rules.Destroy()
	var hits goyara.MatchRules
	require.NoError(t, rules.ScanMem([]byte(data), 0, 0, &hits))
	for _, h := range hits {
		names = append(names, h.Rule)
	}
	sort.Strings(names)
	return names
}

// foreign lists module fields that package ruleset takes for undefined outside
// of the module's file format.
var foreign = map[string][]string{
	"pe": {
		"machine", "number_of_sections", "timestamp", "checksum", "entry_point", "entry_point_raw", "image_base",
		"characteristics", "subsystem", "dll_characteristics", "size_of_optional_header", "opthdr_magic", "size_of_code",
		"linker_version.major", "os_version.minor", "section_alignment", "sections[0].name", "sections[0].raw_data_size",
		"overlay.offset", "overlay.size", "number_of_resources", "resources[0].type", "resource_timestamp", "number_of_signatures",
		"is_signed", "signatures[0].issuer", "rich_signature.key", "rich_signature.clear_data", "rich_signature.version(1)",
		"rich_signature.toolid(1)", "version_info[\"CompanyName\"]", "number_of_version_infos", "version_info_list[0].key",
		"number_of_exports", "number_of_imports", "number_of_imported_functions", "number_of_delayed_imports",
		"export_details[0].name", "export_timestamp", "dll_name", "pdb_path", "imphash()", "imports(\"a\")", "imports(\"a\", \"b\")",
		"imports(\"a\", 1)", "imports(/a/, /b/)", "exports(\"a\")", "exports(1)", "exports(/a/)", "exports_index(\"a\")",
		"import_rva(\"a\", \"b\")", "delayed_import_rva(\"a\", \"b\")", "section_index(\"a\")", "section_index(1)", "locale(1)",
		"language(1)", "is_dll()", "is_32bit()", "is_64bit()", "rva_to_offset(1)", "calculate_checksum()",
		"data_directories[0].size", "number_of_rva_and_sizes", "pointer_to_symbol_table", "loader_flags", "win32_version_value",
		"import_details[0].library_name", "delayed_import_details[0].library_name",
	},
	"elf": {
		"type", "machine", "entry_point", "number_of_sections", "number_of_segments", "sh_offset", "sh_entry_size", "ph_offset",
		"sections[0].name", "segments[0].type", "dynamic_section_entries", "dynamic[0].type", "symtab_entries", "symtab[0].name",
		"dynsym_entries", "dynsym[0].name", "telfhash()", "import_md5()",
	},
	"dotnet": {
		"version", "module_name", "number_of_streams", "streams[0].name", "number_of_guids", "guids[0]", "number_of_resources",
		"resources[0].name", "number_of_classes", "classes[0].name", "assembly_refs[0].name", "number_of_assembly_refs",
		"assembly.name", "number_of_modulerefs", "modulerefs[0]", "typelib", "number_of_constants", "constants[0]",
		"number_of_field_offsets", "field_offsets[0]", "number_of_user_strings", "user_strings[0]",
	},
}

var samples = map[string]string{
	"empty":  "",
	"text":   "#!/bin/sh\necho hello\n",
	"elf":    "\x7fELF\x02\x01\x01" + strings.Repeat("\x00", 200),
	"zeroes": strings.Repeat("\x00", 4096),
}

func TestForeignFieldsAreUndefined(t *testing.T) {
	t.Parallel()
	for module, fields := range foreign {
		for _, field := range fields {
			rule := fmt.Sprintf("import %q rule x { condition: defined %s.%s }", module, module, field)
			for name, data := range samples {
				if module == "elf" && name == "elf" {
					continue
				}
				require.Empty(t, whole(t, rule, data), "%s.%s is defined in %s", module, field, name)
			}
			if module != "elf" {
				continue
			}
			require.Empty(t, whole(t, rule, "MZ"+strings.Repeat("\x00", 500)), "%s.%s is defined in MZ", module, field)
		}
	}
}

// What package ruleset relies on beyond fields: see evaluate.go.
func TestUndefinedSemantics(t *testing.T) {
	t.Parallel()
	const undefined = "pe.number_of_sections == 1"
	for condition, matches := range map[string]bool{
		undefined:                          false,
		"not " + undefined:                 false,
		undefined + " or true":             true,
		"not (" + undefined + " and true)": true, // "and" takes undefined for false
		"pe.number_of_sections + 1 == pe.number_of_sections + 1":   false,
		"pe.dll_name contains \"\"":                                false,
		"pe.imphash() != \"a\"":                                    false,
		"pe.is_pe":                                                 false,
		"defined pe.is_pe":                                         true,
		"defined pe.MACHINE_AMD64":                                 true,
		"hash.md5(pe.rich_signature.clear_data) != \"x\"":          false,
		"for any s in pe.sections : (true)":                        false,
		"not for any s in pe.sections : (true)":                    true,
		"for any i in (0..pe.number_of_sections) : (true)":         false,
		"not for any i in (0..pe.number_of_sections) : (true)":     true,
		"for any i in (pe.number_of_sections..5) : (true)":         false,
		"not for any i in (0..pe.number_of_sections - 1) : (true)": true,
		"for any i in (1..2) : (pe.number_of_sections == i)":       false,
		"pe.is_dll() & 1 == 1":                                     false,
	} {
		got := whole(t, "import \"pe\" import \"hash\" rule x { condition: "+condition+" }", "hello")
		require.Equal(t, matches, len(got) == 1, condition)
	}
}

// forms are conditions in the shapes that real rules have.
var forms = []string{
	`uint16(0) == 0x5A4D and any of them`, `uint32(0) == 0x464c457f and any of them`, `uint32be(0) == 0x7f454c46 or $a`,
	`$mz at 0 and $a`, `$mz at 0 or $b`, `not $mz at 0 and $a`, `not uint16(0) == 0x5A4D and $a`, `any of them`, `all of them`,
	`$a and filesize < 100`, `1 of ($a, $b) and (uint16(0) == 0x5A4D or uint16(0) == 0x457f)`, `uint8(0) == 0x4d and $a`,
	`(uint16(0) == 0x5A4D or pe.is_pe) and $a`, `not pe.is_pe and $a`, `$a or pe.number_of_sections == 2`,
	`$b and (pe.machine == 1 or elf.machine == 2 or $a)`, `for any i in (0..pe.number_of_sections) : (i >= 0) or $b`,
	`not for any s in pe.sections : (s.name == "x") and $a`, `for all of them : ($ in (0..50))`, `uint16(0) != 0x5A4D and $b`,
	`$a and not (pe.number_of_sections == 2 or uint16(0) == 0x5A4D)`, `elf.type == elf.ET_EXEC or $b`, `helper and $a`, `not helper and $a`,
	`#a > 1 or #b == 1`, `@a[1] < 10 and uint8(3) == 0x46`, `$a and hash.md5(0, 2) != ""`, `math.entropy(0, filesize) >= 1.0 and $b`,
	`defined pe.machine or $a`, `not defined pe.machine and $b`, `dotnet.is_dotnet or $a`, `any of (wild*) and $b`,
}

// TestSameResultsAsWhole compares every combination with plain libyara.
func TestSameResultsAsWhole(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("import \"pe\" import \"elf\" import \"hash\" import \"math\" import \"dotnet\"\n")
	b.WriteString("private rule helper { condition: uint16(0) == 0x5A4D }\n")
	b.WriteString("rule wild_a { condition: uint32(0) == 0x464c457f } rule wild_b { condition: pe.machine == 0 }\n")
	for i, form := range forms {
		fmt.Fprintf(&b, "rule form_%02d { strings: $a = \"alpha\" $b = { 62 65 74 61 } $mz = \"MZ\" condition: (%s) and (any of them or true) }\n", i, form)
	}
	text := b.String()
	s := scanner(t, compileText(t, text))
	starts := []string{"", "M", "MZ", "\x7f", "\x7fEL", "\x7fELF", "\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00",
		"#!", "ZM", "MZMZ", "\x4d\x00", pe(), pe()[:80]}
	bodies := []string{"", "alpha", "beta", "alpha beta MZ", "alpha alpha", strings.Repeat("\x00", 64) + "beta", "alpha\x00beta\x7fELF" + strings.Repeat("z", 200)}
	matched := map[string]bool{}
	for _, start := range starts {
		for _, body := range bodies {
			want := whole(t, text, start+body)
			require.Equal(t, want, inspect(t, s, start+body), "%q", start+body)
			for _, name := range want {
				matched[name] = true
			}
		}
	}
	require.Greater(t, len(matched), len(forms)*3/4, "most forms must match somewhere for the comparison to mean something")
}

// pe returns the headers of a PE file with two sections.
func pe() string {
	b := make([]byte, 512)
	copy(b, "MZ")
	b[0x3c] = 0x40
	copy(b[0x40:], "PE\x00\x00\x64\x86\x02\x00")
	b[0x54] = 0xf0 // size of the optional header
	b[0x56] = 0x22
	copy(b[0x58:], "\x0b\x02")
	copy(b[0x40+24+0xf0:], ".text")
	copy(b[0x40+24+0xf0+40:], ".data")
	return string(b)
}
