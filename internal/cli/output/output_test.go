package output

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                         "",
		"/srv/übung 文件":            "/srv/übung 文件",
		"a\tb\nc":                  `a\x09b\x0ac`,
		"\x1b[2J\x1b]0;title\x07":  `\x1b[2J\x1b]0;title\x07`,
		"c1 \x9b2J":                `c1 \x9b2J`,
		"c1 as rune \u009b2J":      `c1 as rune \x9b2J`,
		"not \xff\xfe UTF-8":       `not \xff\xfe UTF-8`,
		"half \xe2\x82":            `half \xe2\x82`,
		"in\u202egpj.exe":          `in\u202egpj.exe`,
		"isolate\u2066x\u2069":     `isolate\u2066x\u2069`,
		"mark\u200f zero\u200bw":   `mark\u200f zero\u200bw`,
		"line\u2028par\u2029":      `line\u2028par\u2029`,
		"tag \U000e0041":           `tag \U000e0041`,
		"replacement \ufffd stays": "replacement \ufffd stays",
	} {
		require.Equal(t, want, Clean(in))
	}
	require.Equal(t, "a\x1b\\xff", Valid("a\x1b\xff"), "only bytes that are not UTF-8")
}

func FuzzClean(f *testing.F) {
	for _, s := range []string{"plain", "\x1b[2J", "\xff\u202e", "文"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got := Clean(s)
		require.True(t, utf8.ValidString(got))
		require.False(t, strings.ContainsFunc(got, func(r rune) bool {
			return unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp)
		}))
		require.Equal(t, got, Clean(got), "cleaning again changes nothing")
		require.True(t, utf8.ValidString(Valid(s)))
	})
}

type item struct {
	Name string `json:"name"`
	N    int    `json:"n,omitempty"`
}

func TestPrint(t *testing.T) {
	t.Parallel()
	list := []item{{"a<b", 1}, {"c", 0}}
	raw := json.RawMessage(`{"mode":"enforce","a":[1,"x: y","2020"]}`)
	for name, tc := range map[string]struct {
		format Format
		v      any
		want   string
	}{
		"json":        {JSON, list, "[\n  {\n    \"name\": \"a<b\",\n    \"n\": 1\n  },\n  {\n    \"name\": \"c\"\n  }\n]\n"},
		"json empty":  {JSON, []item{}, "[]\n"},
		"jsonl":       {JSONL, list, "{\"name\":\"a<b\",\"n\":1}\n{\"name\":\"c\"}\n"},
		"jsonl one":   {JSONL, list[0], "{\"name\":\"a<b\",\"n\":1}\n"},
		"jsonl empty": {JSONL, []item{}, ""},
		"jsonl raw":   {JSONL, raw, string(raw) + "\n"},
		"yaml":        {YAML, list, "- name: a<b\n  n: 1\n- name: c\n"},
		"yaml raw":    {YAML, raw, "mode: enforce\na:\n  - 1\n  - 'x: y'\n  - \"2020\"\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var b bytes.Buffer
			require.NoError(t, Print(&b, tc.format, tc.v, nil))
			require.Equal(t, tc.want, b.String())
		})
	}
	require.Error(t, Print(&bytes.Buffer{}, SARIF, list, nil))
}

func TestTable(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	require.NoError(t, Print(&b, Table, nil, func(w *Writer) {
		w.Line("title %s", "x\ny")
		w.Row("NAME", "N")
		w.Row("long\tname", 1)
		w.Row("b", 22)
	}))
	require.Equal(t, "title x\\x0ay\nNAME          N\nlong\\x09name  1\nb             22\n", b.String())
}

func TestFormat(t *testing.T) {
	t.Parallel()
	var f Format
	for _, s := range append(Formats, "sarif") {
		require.NoError(t, f.Set(s))
		require.Equal(t, s, f.String())
	}
	require.ErrorContains(t, f.Set("xml"), "none of table, json, jsonl, yaml, sarif")
	require.Equal(t, "format", f.Type())
	require.Len(t, Formats, 4, "Set must not change the list")
}

func BenchmarkClean(b *testing.B) {
	for name, s := range map[string]string{"plain": "/srv/www/html/index.php: clean", "hostile": "/srv/\x1b[2J\u202e/\xff"} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Clean(s)
			}
		})
	}
}
