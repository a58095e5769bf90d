package response

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestParseMount(t *testing.T) {
	t.Parallel()
	m, id, ok := parseMount(`42 1 0:38 / /run/my\040root rw,relatime shared:7 - overlay overlay rw,lowerdir=/l\134:1:/l2,upperdir=/up\134\054per\040x,workdir=/w`)
	require.True(t, ok)
	require.Equal(t, "42", id)
	require.Equal(t, "/run/my root", m.point)
	require.Equal(t, "overlay", m.kind)
	_, ok = m.option("nope")
	require.False(t, ok)
	upper, ok := m.option("upperdir")
	require.True(t, ok)
	require.Equal(t, `/up\,per x`, upper)
	require.Equal(t, "/up,per x", strip(upper))
	require.Equal(t, `a\b\`, strip(`a\\b\`))
	work, ok := m.option("workdir")
	require.True(t, ok)
	require.Equal(t, "/w", work)
	for _, line := range []string{"", " - ", "1 2 3 - 4", "1 2 3 4 5 6 - 7"} {
		_, _, ok := parseMount(line)
		require.False(t, ok, line)
	}
}

func TestParseStat(t *testing.T) {
	t.Parallel()
	flags, start, err := parseStat([]byte("7 (a) b) (c) S 1 7 7 0 -1 2097152 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0"))
	require.NoError(t, err)
	require.NotZero(t, flags&flagKernelThread)
	require.Equal(t, uint64(12345), start)
	for _, line := range []string{"", "1 (x)", "1 (x) S 1 7 7 0 -1 z 0 0 0 0 0 0 0 0 20 0 1 0 12345", "1 (x) S 1 7 7 0 -1 1 0 0 0 0 0 0 0 0 20 0 1 0 z"} {
		_, _, err := parseStat([]byte(line))
		require.Error(t, err, line)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`42 1 0:38 / /run/my\040root rw,relatime shared:7 - overlay overlay rw,lowerdir=/l,upperdir=/up,workdir=/w`)
	f.Add("7 (a) b) (c) S 1 7 7 0 -1 2097152 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0")
	f.Add(`a\`)
	f.Fuzz(func(t *testing.T, s string) {
		if m, _, ok := parseMount(s); ok {
			m.option("upperdir")
		}
		parseStat([]byte(s))
		require.LessOrEqual(t, len(unescape(s)), len(s))
		strip(s)
		require.LessOrEqual(t, len(unprintable(s)), len(s))
		if !strings.Contains(s, `\x`) {
			require.Equal(t, s, unprintable(escape(s)))
		}
	})
}
