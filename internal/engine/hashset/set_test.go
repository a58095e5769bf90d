package hashset

import (
	"bytes"
	"crypto/md5"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

// number returns the i-th test digest.
func number(a Algorithm, i int) []byte {
	h := sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(i)))
	return h[:a.Size()]
}

func entries(list ...Entry) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for _, e := range list {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// numbered yields n entries; every seventh digest comes twice.
func numbered(a Algorithm, n int, size func(i int) int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		for i := range n {
			e := Entry{Key: number(a, i), Size: size(i), Name: fmt.Sprintf("Family.%d", i%100), Severity: threat.High}
			if !yield(e, nil) || (i%7 == 0 && !yield(e, nil)) {
				return
			}
		}
	}
}

func anySize(int) int64 { return AnySize }

func build(t testing.TB, a Algorithm, seq iter.Seq2[Entry, error]) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), a.File())
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = Build(f, a, t.TempDir(), seq)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return path
}

func open(t testing.TB, path string) *Set {
	t.Helper()
	f, err := os.Open(path)
	require.NoError(t, err)
	s, err := Open(f)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestLookup(t *testing.T) {
	t.Parallel()
	for _, a := range Algorithms {
		for _, n := range []int{0, 1, 2, 3, 127, 128, 2000} {
			for _, sized := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s/%d/%t", a, n, sized), func(t *testing.T) {
					t.Parallel()
					size := anySize
					if sized {
						size = func(i int) int64 { return int64(i) * 10 }
					}
					s := open(t, build(t, a, numbered(a, n, size)))
					require.Equal(t, a, s.Algorithm())
					require.EqualValues(t, n, s.Len())
					for i := range n {
						name, sev, ok, err := s.Lookup(number(a, i), int64(i)*10)
						require.NoError(t, err)
						require.True(t, ok, i)
						require.Equal(t, fmt.Sprintf("Family.%d", i%100), name)
						require.Equal(t, threat.High, sev)
						require.True(t, s.MayHaveSize(int64(i)*10))
						_, _, ok, err = s.Lookup(number(a, i), int64(i)*10+1)
						require.NoError(t, err)
						require.Equal(t, !sized, ok)
					}
					for i := range 2000 {
						_, _, ok, err := s.Lookup(number(a, -1-i), 0)
						require.NoError(t, err)
						require.False(t, ok)
					}
				})
			}
		}
	}
}

func TestManyShards(t *testing.T) {
	t.Parallel()
	n := 2*shardRecords + 17
	s := open(t, build(t, MD5, numbered(MD5, n, anySize)))
	require.Len(t, s.filters, 3)
	for i := 0; i < n; i += 11 {
		_, _, ok, err := s.Lookup(number(MD5, i), 1)
		require.NoError(t, err)
		require.True(t, ok)
	}
	before := s.Reads()
	for i := range 200_000 {
		_, _, ok, err := s.Lookup(number(MD5, -1-i), 1)
		require.NoError(t, err)
		require.False(t, ok)
	}
	require.Less(t, s.Reads()-before, int64(40), "the filter lets too much pass")
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	key := func(i int) []byte { return number(MD5, i) }
	var buf bytes.Buffer
	sum, err := Build(&buf, MD5, t.TempDir(), entries(
		Entry{Key: key(1), Size: 10, Name: "first", Severity: threat.High},
		Entry{Key: key(1), Size: 10, Name: "second", Severity: threat.High},
		Entry{Key: key(2), Size: 10, Name: "weak", Severity: threat.Low},
		Entry{Key: key(2), Size: 20, Name: "strong", Severity: threat.Critical},
	))
	require.NoError(t, err)
	require.Equal(t, Summary{Entries: 2, Duplicates: 2}, sum)
	path := filepath.Join(t.TempDir(), "x")
	require.NoError(t, os.WriteFile(path, buf.Bytes(), 0o600))
	s := open(t, path)
	name, _, ok, err := s.Lookup(key(1), 10)
	require.NoError(t, err)
	require.True(t, ok)
	require.Equal(t, "first", name)
	name, sev, ok, err := s.Lookup(key(2), 999)
	require.NoError(t, err)
	require.True(t, ok, "two sizes of one digest match any size")
	require.Equal(t, "strong", name)
	require.Equal(t, threat.Critical, sev)
	require.True(t, s.MayHaveSize(12345))
}

// An attacker who controls a list can choose digests that share what the
// search and the filter look at.
func TestCraftedKeys(t *testing.T) {
	t.Parallel()
	var list []Entry
	for i := range 3000 {
		k := make([]byte, 32)
		binary.BigEndian.PutUint32(k[28:], uint32(i))
		list = append(list, Entry{Key: k, Size: AnySize, Name: "same", Severity: threat.High})
	}
	s := open(t, build(t, SHA256, entries(list...)))
	for _, e := range list {
		_, _, ok, err := s.Lookup(e.Key, 1)
		require.NoError(t, err)
		require.True(t, ok)
	}
}

func TestBuildRefuses(t *testing.T) {
	t.Parallel()
	ok := Entry{Key: number(MD5, 1), Size: AnySize, Name: "n", Severity: threat.High}
	with := func(f func(*Entry)) Entry { e := ok; f(&e); return e }
	for want, e := range map[string]Entry{
		"digest of 3 bytes": with(func(e *Entry) { e.Key = e.Key[:3] }),
		"size -2":           with(func(e *Entry) { e.Size = -2 }),
		"name of 0 bytes":   with(func(e *Entry) { e.Name = "" }),
		"name of 513 bytes": with(func(e *Entry) { e.Name = string(make([]byte, 513)) }),
		"unknown severity":  with(func(e *Entry) { e.Severity = "bad" }),
	} {
		_, err := Build(&bytes.Buffer{}, MD5, t.TempDir(), entries(e))
		require.ErrorContains(t, err, want)
	}
	_, err := Build(&bytes.Buffer{}, "crc", t.TempDir(), entries())
	require.ErrorContains(t, err, "unknown algorithm")
	boom := errors.New("boom")
	_, err = Build(&bytes.Buffer{}, MD5, t.TempDir(), func(yield func(Entry, error) bool) { yield(Entry{}, boom) })
	require.ErrorIs(t, err, boom)
	_, err = Build(fullDisk{}, MD5, t.TempDir(), entries(ok))
	require.ErrorContains(t, err, "no space")
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// Every changed byte and every truncation gives an error or leaves the answers
// as they were.
func TestDamage(t *testing.T) {
	t.Parallel()
	const n = 150
	path := build(t, MD5, numbered(MD5, n, func(i int) int64 { return int64(i % 5) }))
	good, err := os.ReadFile(path)
	require.NoError(t, err)
	bad := filepath.Join(t.TempDir(), "bad")
	try := func(content []byte) {
		require.NoError(t, os.WriteFile(bad, content, 0o600))
		f, err := os.Open(bad)
		require.NoError(t, err)
		s, err := Open(f)
		if err != nil {
			require.ErrorIs(t, err, ErrDamaged)
			require.NoError(t, f.Close())
			return
		}
		for i := -20; i < n; i++ {
			name, _, ok, err := s.Lookup(number(MD5, i), int64(i%5))
			if err != nil {
				require.ErrorIs(t, err, ErrDamaged)
				continue
			}
			require.Equal(t, i >= 0, ok)
			if ok {
				require.Equal(t, fmt.Sprintf("Family.%d", i%100), name)
			}
		}
		require.NoError(t, s.Close())
	}
	for at := 0; at < len(good); at += 1 + at%13*(len(good)/4000) {
		b := bytes.Clone(good)
		b[at] ^= 1 << (at % 8)
		try(b)
	}
	for cut := 1; cut < len(good); cut += len(good) / 50 {
		try(good[:len(good)-cut])
	}
	swapped := bytes.Clone(good)
	copy(swapped, good[blockSize:2*blockSize])
	try(swapped)
	try(nil)
}

func TestOpenAlgorithms(t *testing.T) {
	t.Parallel()
	a, ok := BySize(md5.Size)
	require.True(t, ok)
	require.Equal(t, MD5, a)
	_, ok = BySize(5)
	require.False(t, ok)
	require.Equal(t, "sha1.set", SHA1.File())
	require.Zero(t, Algorithm("x").Size())
}
