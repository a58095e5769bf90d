package threat

import (
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"
)

func TestWorst(t *testing.T) {
	t.Parallel()
	order := []Verdict{"", Clean, Partial, Error, Suspicious, Malicious}
	for i, a := range order {
		for j, b := range order {
			require.Equal(t, order[max(i, j)], Worst(a, b), "%q and %q", a, b)
		}
		require.Equal(t, a == Suspicious || a == Malicious, a.Threat(), a)
	}
}

func TestSeverity(t *testing.T) {
	t.Parallel()
	want := []Verdict{Clean, Suspicious, Suspicious, Malicious, Malicious}
	for i, s := range Severities {
		require.Equal(t, i+1, s.Rank(), s)
		require.Equal(t, want[i], s.Verdict(), s)
	}
	require.Zero(t, Severity("terrible").Rank())
}

func TestHashText(t *testing.T) {
	t.Parallel()
	const text = "00ff00000000000000000000000000000000000000000000000000000000abcd"
	var h Hash
	require.NoError(t, h.UnmarshalText([]byte(text)))
	require.Equal(t, text, h.String())
	b, err := h.MarshalText()
	require.NoError(t, err)
	require.Equal(t, text, string(b))
	require.NoError(t, h.UnmarshalText(nil))
	require.True(t, h.IsZero())
	b, err = h.MarshalText()
	require.NoError(t, err)
	require.Empty(t, b)
	for _, bad := range []string{"00", text[:63], text[:63] + "g", text + "0"} {
		require.ErrorContains(t, h.UnmarshalText([]byte(bad)), "parsing hash", bad)
	}
}

func TestPrintable(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"plain": "plain", "ü/€": "ü/€", "a\xffb": `a\xffb`, "\xe9": `\xe9`, "": "", "\xed\xa0\x80": `\xed\xa0\x80`,
		"\ufffd": "\ufffd", "/a\xff\xfeb\ufffd": "/a\\xff\\xfeb\ufffd",
	} {
		require.Equal(t, want, Printable(in))
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\xff€")
	f.Fuzz(func(t *testing.T, s string) {
		if p := Printable(s); !utf8.ValidString(p) {
			t.Fatalf("%q is not UTF-8", p)
		}
	})
}
