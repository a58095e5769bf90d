package cache

import (
	"crypto/sha256"
	"encoding/binary"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

func number(i uint64) threat.Hash {
	return sha256.Sum256(binary.LittleEndian.AppendUint64(nil, i))
}

func TestFilter(t *testing.T) {
	t.Parallel()
	f := &filter{}
	require.False(t, f.without(number(0)), "nothing is sure before it is filled")
	f.ready.Store(true)
	require.True(t, f.without(number(0)))
	for i := range uint64(100_000) {
		f.add(number(i))
	}
	wrong := 0
	for i := range uint64(100_000) {
		require.False(t, f.without(number(i)), "what was added is never missed")
		if !f.without(number(1<<40 + i)) {
			wrong++
		}
	}
	require.Less(t, wrong, 500, "few of the others are taken for known")
}

func TestFilterIsFilledOnce(t *testing.T) {
	t.Parallel()
	f := &filter{}
	filled := 0
	for range 3 * worth {
		if f.missed() {
			filled++
		}
	}
	require.Equal(t, 1, filled)
	g := &filter{}
	g.ready.Store(true)
	for range 3 * worth {
		require.False(t, g.missed(), "it is filled already")
	}
}

func BenchmarkFilter(b *testing.B) {
	f := &filter{}
	f.ready.Store(true)
	h := number(7)
	b.ReportAllocs()
	for b.Loop() {
		f.without(h)
	}
}
