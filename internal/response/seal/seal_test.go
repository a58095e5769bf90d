package seal

import (
	"bytes"
	"crypto/rand"
	"io"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"
)

var key = [KeySize]byte{1, 2, 3}

func sealed(t testing.TB, plain []byte, name string) []byte {
	var b bytes.Buffer
	w, err := NewWriter(&b, &key, []byte(name))
	require.NoError(t, err)
	_, err = w.Write(plain)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	require.NoError(t, w.Close())
	return b.Bytes()
}

func open(b []byte, name string) ([]byte, error) {
	r, err := NewReader(bytes.NewReader(b), &key, []byte(name))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize, 3*chunkSize + 5} {
		plain := make([]byte, n)
		rand.Read(plain)
		b := sealed(t, plain, "x")
		require.Equal(t, Size(int64(n)), int64(len(b)))
		got, err := open(b, "x")
		require.NoError(t, err)
		require.True(t, bytes.Equal(plain, got), "%d bytes", n)
		r, err := NewReader(iotest.OneByteReader(bytes.NewReader(b)), &key, []byte("x"))
		require.NoError(t, err)
		require.NoError(t, iotest.TestReader(r, plain))
	}
}

func TestDamageIsNoticed(t *testing.T) {
	t.Parallel()
	plain := make([]byte, 2*chunkSize+100)
	rand.Read(plain)
	good := sealed(t, plain, "x")
	chunk := func(i int) []byte {
		start := headerSize + i*(chunkSize+tagSize)
		return good[start:min(len(good), start+chunkSize+tagSize)]
	}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	head := good[:headerSize]
	for name, b := range map[string][]byte{
		"empty":               {},
		"half a header":       head[:20],
		"header only":         head,
		"other magic":         join([]byte("ZZZZZZZZ"), good[8:]),
		"cut in a chunk":      good[:len(good)-1],
		"cut after a chunk":   join(head, chunk(0), chunk(1)),
		"cut after the first": join(head, chunk(0)),
		"swapped":             join(head, chunk(1), chunk(0), chunk(2)),
		"left out":            join(head, chunk(0), chunk(2)),
		"repeated":            join(head, chunk(0), chunk(0), chunk(1), chunk(2)),
		"extended":            join(good, []byte{0}),
		"two streams":         join(good, good),
	} {
		_, err := open(b, "x")
		require.ErrorIs(t, err, ErrDamaged, name)
	}
	for i := 0; i < len(good); i += 1009 {
		b := bytes.Clone(good)
		b[i] ^= 1
		got, err := open(b, "x")
		require.ErrorIs(t, err, ErrDamaged, "byte %d", i)
		require.True(t, bytes.HasPrefix(plain, got), "only authentic bytes come out")
	}
	_, err := open(good, "y")
	require.ErrorIs(t, err, ErrDamaged, "other name")
	other := [KeySize]byte{9}
	_, err = NewReader(bytes.NewReader(good), &other, []byte("x"))
	require.ErrorIs(t, err, ErrDamaged, "other key")
}

func TestReadErrorsArePassedOn(t *testing.T) {
	t.Parallel()
	good := sealed(t, make([]byte, chunkSize*2), "x")
	r, err := NewReader(io.MultiReader(bytes.NewReader(good[:headerSize+100]), iotest.ErrReader(io.ErrClosedPipe)), &key, []byte("x"))
	require.NoError(t, err)
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, io.ErrClosedPipe)
}

func FuzzReader(f *testing.F) {
	f.Add(sealed(f, []byte("hello"), "x"))
	f.Add(sealed(f, nil, "x"))
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := open(b, "x")
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			return
		}
		require.Equal(t, Size(int64(len(plain))), int64(len(b)), "a stream has one form")
	})
}

func BenchmarkWriter(b *testing.B) {
	w, err := NewWriter(io.Discard, &key, []byte("x"))
	require.NoError(b, err)
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := w.Write(p); err != nil {
			b.Fatal(err)
		}
	}
}
