package hashset

import (
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

func TestEngine(t *testing.T) {
	t.Parallel()
	data := []byte("harmless content of a test")
	s256, s1, s5 := sha256.Sum256(data), sha1.Sum(data), md5.Sum(data)
	one := func(a Algorithm, key []byte, size int64) *Set {
		return open(t, build(t, a, entries(Entry{Key: key, Size: size, Name: "Test." + string(a), Severity: threat.High})))
	}
	size := int64(len(data))
	e, err := NewEngine(one(SHA256, s256[:], AnySize), one(SHA1, s1[:], AnySize), one(MD5, s5[:], size))
	require.NoError(t, err)
	require.True(t, e.NeedSHA1(1))
	require.True(t, e.NeedMD5(size))
	require.True(t, e.NeedMD5(-1))
	require.False(t, e.NeedMD5(size+1))

	found, err := e.Inspect(t.Context(), &engine.Content{Size: size, SHA256: s256, SHA1: &s1, MD5: &s5})
	require.NoError(t, err)
	require.Equal(t, []threat.Detection{
		{Signature: "Test.sha256", Engine: "hash", Severity: threat.High},
		{Signature: "Test.sha1", Engine: "hash", Severity: threat.High},
		{Signature: "Test.md5", Engine: "hash", Severity: threat.High},
	}, found)

	found, err = e.Inspect(t.Context(), &engine.Content{Size: size, SHA256: s256, SHA1: &s1})
	require.ErrorContains(t, err, "no md5 was computed")
	require.Len(t, found, 2, "what was found stays found")

	found, err = e.Inspect(t.Context(), &engine.Content{Size: size + 1, SHA1: &[20]byte{}})
	require.NoError(t, err, "MD5 is not needed for this size")
	require.Empty(t, found)

	_, err = NewEngine(e.md5, e.md5)
	require.ErrorContains(t, err, "two sets of md5")
	none, err := NewEngine()
	require.NoError(t, err)
	require.False(t, none.NeedMD5(-1))
	found, err = none.Inspect(t.Context(), &engine.Content{})
	require.NoError(t, err)
	require.Empty(t, found)
	require.NoError(t, none.Close())
}
