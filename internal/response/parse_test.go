package response

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

func TestStrip(t *testing.T) {
	t.Parallel()
	require.Equal(t, "/up,per x", strip(`/up\,per x`))
	require.Equal(t, `a\b\`, strip(`a\\b\`))
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
	f.Add("7 (a) b) (c) S 1 7 7 0 -1 2097152 0 0 0 0 0 0 0 0 20 0 1 0 12345 0 0")
	f.Add(`a\`)
	f.Fuzz(func(t *testing.T, s string) {
		parseStat([]byte(s))
		strip(s)
		require.LessOrEqual(t, len(unprintable(s)), len(s))
		if !strings.Contains(s, `\x`) {
			require.Equal(t, s, unprintable(threat.Printable(s)))
		}
	})
}
