package limit

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestLimiter(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := New(3, 10*time.Second)
	l.now = func() time.Time { return now }
	for range 3 {
		ok, _ := l.Allow("a")
		require.True(t, ok)
	}
	ok, wait := l.Allow("a")
	require.False(t, ok)
	require.Equal(t, 10*time.Second, wait)
	ok, _ = l.Allow("b")
	require.True(t, ok, "keys do not disturb each other")
	now = now.Add(10 * time.Second)
	ok, _ = l.Allow("a")
	require.True(t, ok)
	l.Reset("a")
	ok, _ = l.Allow("a")
	require.True(t, ok)
}

func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	now := time.Unix(1000, 0)
	l := New(2, time.Second)
	l.now = func() time.Time { return now }
	for i := range maxKeys + 100 {
		l.Allow(fmt.Sprint(i))
	}
	require.Len(t, l.buckets, maxKeys)
	ok, wait := l.Allow("new")
	require.False(t, ok)
	require.Positive(t, wait)
	now = now.Add(time.Minute)
	ok, _ = l.Allow("new")
	require.True(t, ok)
	require.Len(t, l.buckets, 1)
}
