package builtin

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEICAR(t *testing.T) {
	t.Parallel()
	require.Len(t, EICAR(), 68)
	sum := sha256.Sum256(EICAR())
	list, err := fs.ReadFile(Rules(), "lazaret/test.hsb")
	require.NoError(t, err)
	require.Contains(t, string(list), hex.EncodeToString(sum[:])+":68:Lazaret.Test.EICAR\n")
}

func TestSamples(t *testing.T) {
	t.Parallel()
	bad, good := 0, 0
	for _, s := range Samples() {
		require.NotEmpty(t, s.Name)
		if s.Signature == "" {
			good++
		} else {
			bad++
			require.NotEmpty(t, s.Data)
		}
	}
	require.Greater(t, bad, 20)
	require.Greater(t, good, 20)
}
