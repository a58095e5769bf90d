package yara

import (
	"bytes"
	"context"
	"io"
	"sort"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/ruleset"
	"github.com/lazaret/lazaret/internal/threat"
)

func compileText(t testing.TB, texts ...string) *Compiled {
	t.Helper()
	var sources []ruleset.Source
	for i, text := range texts {
		sources = append(sources, ruleset.Source{Name: string(rune('a'+i)) + ".yar", Text: []byte(text)})
	}
	c, err := Compile(sources)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

func scanner(t testing.TB, c *Compiled) *Scanner {
	t.Helper()
	readers := map[ruleset.Class]io.Reader{}
	for _, class := range ruleset.Classes {
		var b bytes.Buffer
		require.NoError(t, c.Write(class, &b))
		readers[class] = &b
	}
	s, err := Load(readers)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s
}

func inspect(t testing.TB, s *Scanner, data string) (names []string) {
	t.Helper()
	found, err := s.Inspect(context.Background(), &engine.Content{Data: []byte(data), Size: int64(len(data))})
	require.NoError(t, err)
	for _, d := range found {
		names = append(names, d.Signature)
	}
	sort.Strings(names)
	return names
}

func TestDetection(t *testing.T) {
	t.Parallel()
	s := scanner(t, compileText(t, `
private rule helper { strings: $a = "needle" condition: $a }
rule Found : tag { meta: description = "d" author = "a" reference = "r" technique = "T1496" score = 95 condition: helper }
rule Extern { condition: filename == "" and md5 == "" and owner == "" and extension == "" and filepath == "" and filetype == "" and file_type == "" }
`))
	require.Equal(t, 2, s.Rules())
	found, err := s.Inspect(context.Background(), &engine.Content{Data: []byte("a needle"), Size: 8})
	require.NoError(t, err)
	require.Equal(t, []threat.Detection{
		{Signature: "Found", Engine: "yara", Severity: threat.Critical, Technique: "T1496", Description: "d", Author: "a", Reference: "r"},
		{Signature: "Extern", Engine: "yara", Severity: threat.High},
	}, found)
	require.Equal(t, []string{"Extern"}, inspect(t, s, ""))
}

func TestErrorsNameFileAndLine(t *testing.T) {
	t.Parallel()
	c := compileText(t,
		"rule good { condition: true }\n\nrule bad {\n  condition:\n    nothing\n}\nrule late { condition: bad }\nrule fine { condition: good }\n",
		"import \"magic\"\nimport \"nowhere\"\nrule m { condition: magic.type() == \"x\" }\nrule n { condition: nowhere.x == 1 }\nrule ok { condition: true }",
		"global rule g { condition: undefined_thing }\nrule other { condition: true }",
		"rule unused { strings: $a = \"x\" condition: true }\nrule regex { strings: $a = /a(/ condition: $a }",
	)
	var got []api.ImportError
	for _, e := range c.Errors {
		require.NotEmpty(t, e.Text)
		got = append(got, api.ImportError{File: e.File, Line: e.Line, Rule: e.Rule})
	}
	require.ElementsMatch(t, []api.ImportError{
		{File: "a.yar", Line: 5, Rule: "bad"}, {File: "a.yar", Line: 7, Rule: "late"},
		{File: "b.yar", Line: 3, Rule: "m"}, {File: "b.yar", Line: 2, Rule: "n"},
		{File: "c.yar", Line: 1, Rule: "g"}, {File: "c.yar", Line: 2, Rule: "other"},
		{File: "d.yar", Line: 1, Rule: "unused"}, {File: "d.yar", Line: 2, Rule: "regex"},
	}, got)
	require.Equal(t, []string{"fine", "good", "ok"}, inspect(t, scanner(t, c), "x"))
}

// A file with many rules and a few bad ones must not be compiled once per rule.
func TestManyRulesFewErrors(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	for i := range 2000 {
		b.WriteString("rule r")
		for n := i; ; n /= 26 {
			b.WriteByte('a' + byte(n%26))
			if n < 26 {
				break
			}
		}
		if i%700 == 5 {
			b.WriteString("_bad { condition: nope }\n")
			continue
		}
		b.WriteString(" { condition: filesize == 12345678 }\n")
	}
	start := time.Now()
	c := compileText(t, b.String())
	require.Len(t, c.Errors, 3)
	require.Len(t, c.Rules, 1997)
	require.Less(t, time.Since(start), 20*time.Second)
}

func TestSameNamesInDifferentFiles(t *testing.T) {
	t.Parallel()
	c := compileText(t, "rule r { condition: false }", "rule r { strings: $a = \"x\" condition: $a }")
	require.Empty(t, c.Errors)
	require.Equal(t, []string{"r"}, inspect(t, scanner(t, c), "x"))
}

func TestWarningsAreReported(t *testing.T) {
	t.Parallel()
	c := compileText(t, "rule r { strings: $a = /a.*b/ condition: $a }\nrule slow { strings: $a = /.{0,9}\\x00/ condition: $a }")
	require.Empty(t, c.Errors)
	require.NotEmpty(t, c.Warnings)
	require.Equal(t, "a.yar", c.Warnings[0].File)
}

func TestNothing(t *testing.T) {
	t.Parallel()
	s := scanner(t, compileText(t))
	require.Zero(t, s.Rules())
	require.Empty(t, inspect(t, s, "MZ"))
	empty, err := Load(nil)
	require.NoError(t, err)
	require.Empty(t, inspect(t, empty, "x"))
}

func TestLoadRefusesDamage(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, compileText(t, "rule r { condition: true }").Write(ruleset.Other, &b))
	for name, data := range map[string][]byte{
		"empty": nil, "short": b.Bytes()[:20], "cut": b.Bytes()[:b.Len()-10], "text": []byte("rule r { condition: true }"),
		"other version": bytes.Replace(b.Bytes(), []byte("4.5."), []byte("4.4."), 1), "flipped bit": append(bytes.Clone(b.Bytes()[:b.Len()-1]), b.Bytes()[b.Len()-1]^1),
	} {
		_, err := Load(map[ruleset.Class]io.Reader{ruleset.Other: bytes.NewReader(data)})
		require.ErrorContains(t, err, "loading the compiled rules of class other", name)
	}
}

func TestContextEndedBefore(t *testing.T) {
	t.Parallel()
	s := scanner(t, compileText(t, "rule r { condition: true }"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := s.Inspect(ctx, &engine.Content{Data: []byte("x"), Size: 1})
	require.ErrorIs(t, err, context.Canceled)
}

// A slow pattern ends in an error, not in "nothing found".
func TestSoftTimeout(t *testing.T) {
	t.Parallel()
	s := scanner(t, compileText(t, `rule r { condition: for all i in (0..2000000000) : (uint8(i) >= 0 or true) }`))
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := s.Inspect(ctx, &engine.Content{Data: []byte("x"), Size: 1})
	require.ErrorIs(t, err, context.DeadlineExceeded)
}
