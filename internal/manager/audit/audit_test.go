package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func entry(i int64) []byte {
	return fmt.Appendf(nil, `{"index":%d,"time":"2026-01-02T03:04:05Z","action":"x%d"}`, i, i)
}

func entries(first, n int64) [][]byte {
	var out [][]byte
	for i := range n {
		out = append(out, entry(first+i))
	}
	return out
}

// newLog makes a log with n entries and returns its directory and key.
func newLog(t *testing.T, n int64) (dir, key string, checkpoint []byte) {
	t.Helper()
	dir = t.TempDir()
	l, err := Open(dir, "audit.test")
	require.NoError(t, err)
	require.NoError(t, l.Append(0, entries(0, n)))
	checkpoint, _, key = l.Checkpoint()
	require.NoError(t, l.Close())
	return dir, key, checkpoint
}

func TestAppendReadProve(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	l, err := Open(dir, "audit.test")
	require.NoError(t, err)
	for i := int64(0); i < 70; {
		n := i%5 + 1
		require.NoError(t, l.Append(i, entries(i, n)))
		i += n
	}
	size := l.Size()
	require.NoError(t, l.Append(size-3, entries(size-3, 5)), "repeating entries is harmless")
	require.Equal(t, size+2, l.Size())
	require.Error(t, l.Append(size+7, entries(size+7, 1)), "a gap is refused")
	require.Error(t, l.Append(size+2, [][]byte{[]byte("a\nb")}))
	require.Error(t, l.Append(size+2, [][]byte{make([]byte, MaxEntry+1)}))

	cp, n, vkey := l.Checkpoint()
	v, err := note.NewVerifier(vkey)
	require.NoError(t, err)
	tree, err := ParseCheckpoint(cp, v)
	require.NoError(t, err)
	require.Equal(t, n, tree.N)
	for i := range n {
		e, p, _, err := l.Prove(i)
		require.NoError(t, err)
		require.Equal(t, entry(i), e)
		require.NoError(t, tlog.CheckRecord(p, tree.N, tree.Hash, i, tlog.RecordHash(e)))
	}
	_, err = l.Entry(n)
	require.ErrorIs(t, err, ErrNoEntry)
	p, err := l.ProveConsistency(40)
	require.NoError(t, err)
	half, err := tlog.TreeHash(40, l)
	require.NoError(t, err)
	require.NoError(t, tlog.CheckTree(p, tree.N, tree.Hash, 40, half))
	require.NoError(t, l.Close())

	info, err := os.Stat(filepath.Join(dir, "key"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	l, err = Open(dir, "ignored")
	require.NoError(t, err)
	require.Equal(t, n, l.Size())
	var out bytes.Buffer
	require.NoError(t, l.Export(&out))
	require.NoError(t, l.Close())
	rep, err := VerifyStream(bytes.NewReader(out.Bytes()), Options{Key: vkey})
	require.NoError(t, err)
	require.Empty(t, rep.Problems)
	require.Equal(t, n, rep.Size)
	_, err = VerifyStream(&out, Options{})
	require.Error(t, err)
}

func TestEmptyLogVerifies(t *testing.T) {
	t.Parallel()
	dir, key, _ := newLog(t, 0)
	rep, err := Verify(dir, Options{Key: key})
	require.NoError(t, err)
	require.True(t, rep.OK(), rep.Problems)
}

// TestTamper changes the log in every way and wants each to be found.
func TestTamper(t *testing.T) {
	t.Parallel()
	edit := func(t *testing.T, dir string, f func([][]byte) [][]byte) {
		name := filepath.Join(dir, "entries.jsonl")
		b, err := os.ReadFile(name)
		require.NoError(t, err)
		lines := f(bytes.SplitAfter(b, []byte("\n")))
		require.NoError(t, os.WriteFile(name, bytes.Join(lines, nil), 0o600))
	}
	_, _, otherCheckpoint := newLog(t, 33)
	for name, c := range map[string]struct {
		tamper func(t *testing.T, dir string)
		want   string
	}{
		"changed": {func(t *testing.T, dir string) {
			edit(t, dir, func(l [][]byte) [][]byte { l[7] = bytes.Replace(l[7], []byte("x7"), []byte("y7"), 1); return l })
		}, "entry 7 was changed"},
		"removed": {func(t *testing.T, dir string) {
			edit(t, dir, func(l [][]byte) [][]byte { return append(l[:7], l[8:]...) })
		}, "entry 7 says it is entry 8"},
		"added": {func(t *testing.T, dir string) {
			edit(t, dir, func(l [][]byte) [][]byte {
				return append(l[:7:7], append([][]byte{[]byte("{\"index\":7}\n")}, l[7:]...)...)
			})
		}, "entry 7 was changed or moved"},
		"reordered": {func(t *testing.T, dir string) {
			edit(t, dir, func(l [][]byte) [][]byte { l[3], l[4] = l[4], l[3]; return l })
		}, "entry 3 says it is entry 4"},
		"last removed": {func(t *testing.T, dir string) {
			edit(t, dir, func(l [][]byte) [][]byte { return l[:32] })
		}, "covers 33 entries but only 32"},
		"cut inside an entry": {func(t *testing.T, dir string) {
			edit(t, dir, func(l [][]byte) [][]byte { l[32] = l[32][:10]; return l })
		}, "entry 32 is cut off"},
		"checkpoint edited": {func(t *testing.T, dir string) {
			name := filepath.Join(dir, "checkpoint")
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(name, bytes.Replace(b, []byte("\n33\n"), []byte("\n32\n"), 1), 0o600))
		}, "signature"},
		"checkpoint of another key": {func(t *testing.T, dir string) {
			require.NoError(t, os.WriteFile(filepath.Join(dir, "checkpoint"), otherCheckpoint, 0o600))
		}, "signature"},
		"rewritten with its hashes": {func(t *testing.T, dir string) {
			edit(t, dir, func(l [][]byte) [][]byte { l[7] = bytes.Replace(l[7], []byte("x7"), []byte("y7"), 1); return l })
			require.NoError(t, os.Remove(filepath.Join(dir, "hashes")))
		}, "do not give the signed root hash"},
		"entry too long": {func(t *testing.T, dir string) {
			edit(t, dir, func(l [][]byte) [][]byte { l[7] = make([]byte, 3*MaxEntry); return l })
		}, "entry 7 is longer"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, key, _ := newLog(t, 33)
			rep, err := Verify(dir, Options{Key: key})
			require.NoError(t, err)
			require.True(t, rep.OK(), rep.Problems)
			c.tamper(t, dir)
			rep, err = Verify(dir, Options{Key: key})
			require.NoError(t, err)
			require.Contains(t, fmt.Sprint(rep.Problems), c.want)
		})
	}
}

// TestRememberedCheckpoint plays somebody who has the signing key and writes a
// new, consistent log: only an older checkpoint kept elsewhere tells.
func TestRememberedCheckpoint(t *testing.T) {
	t.Parallel()
	dir, key, remembered := newLog(t, 33)
	forge := func(e [][]byte) {
		for _, f := range []string{"entries.jsonl", "offsets", "hashes", "checkpoint"} {
			require.NoError(t, os.Remove(filepath.Join(dir, f)))
		}
		l, err := Open(dir, "")
		require.NoError(t, err)
		require.NoError(t, l.Append(0, e))
		require.NoError(t, l.Close())
		rep, err := Verify(dir, Options{Key: key})
		require.NoError(t, err)
		require.True(t, rep.OK(), "the forgery is consistent in itself: %v", rep.Problems)
	}
	forge(entries(0, 20))
	rep, err := Verify(dir, Options{Key: key, Remembered: remembered})
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(rep.Problems), "cut off")

	changed := entries(0, 40)
	changed[3] = []byte(`{"index":3,"time":"2026-01-02T03:04:05Z","action":"forged"}`)
	forge(changed)
	rep, err = Verify(dir, Options{Key: key, Remembered: remembered})
	require.NoError(t, err)
	require.Contains(t, fmt.Sprint(rep.Problems), "not those of the remembered checkpoint")

	forge(entries(0, 40))
	rep, err = Verify(dir, Options{Key: key, Remembered: remembered})
	require.NoError(t, err)
	require.True(t, rep.OK(), rep.Problems)
	_, err = Verify(dir, Options{Key: key, Remembered: []byte("nonsense")})
	require.Error(t, err)
}

func TestOpenFindsDamage(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(dir string) error{
		"entries cut":      func(dir string) error { return os.Truncate(filepath.Join(dir, "entries.jsonl"), 100) },
		"offsets cut":      func(dir string) error { return os.Truncate(filepath.Join(dir, "offsets"), 100) },
		"hashes cut":       func(dir string) error { return os.Truncate(filepath.Join(dir, "hashes"), 100) },
		"checkpoint gone":  func(dir string) error { return os.Remove(filepath.Join(dir, "checkpoint")) },
		"key gone":         func(dir string) error { return os.Remove(filepath.Join(dir, "key")) },
		"checkpoint empty": func(dir string) error { return os.Truncate(filepath.Join(dir, "checkpoint"), 0) },
		"root changed": func(dir string) error {
			f, err := os.OpenFile(filepath.Join(dir, "hashes"), os.O_RDWR, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteAt(make([]byte, 32), tlog.HashSize*tlog.StoredHashIndex(5, 0))
			return errors.Join(err, f.Close())
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, _, _ := newLog(t, 33)
			require.NoError(t, damage(dir))
			_, err := Open(dir, "audit.test")
			require.ErrorIs(t, err, ErrDamaged)
		})
	}
}

// TestKilledAppend leaves behind what a kill can leave at each step before the
// checkpoint and wants the log to go on as if nothing had been written.
func TestKilledAppend(t *testing.T) {
	t.Parallel()
	for step := range 4 {
		dir, key, _ := newLog(t, 33)
		tail := append(entry(33), '\n')
		for i, name := range []string{"entries.jsonl", "offsets", "hashes"} {
			if i >= step {
				break
			}
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_APPEND, 0)
			require.NoError(t, err)
			_, err = f.Write(tail[:len(tail)-i])
			require.NoError(t, err)
			require.NoError(t, f.Close())
		}
		rep, err := Verify(dir, Options{Key: key})
		require.NoError(t, err)
		require.True(t, rep.OK(), rep.Problems)
		l, err := Open(dir, "audit.test")
		require.NoError(t, err)
		require.NoError(t, l.Append(33, entries(33, 2)))
		require.NoError(t, l.Close())
		rep, err = Verify(dir, Options{Key: key})
		require.NoError(t, err)
		require.True(t, rep.OK(), rep.Problems)
		require.EqualValues(t, 35, rep.Size)
	}
}

// memory is an outbox whose Done can fail, as a kill before it would.
type memory struct {
	first   int64
	entries [][]byte
	fail    bool
}

func (m *memory) Pending(context.Context, int) (int64, [][]byte, error) {
	return m.first, m.entries, nil
}

func (m *memory) Done(_ context.Context, size int64) error {
	if m.fail {
		m.fail = false
		return errors.New("killed")
	}
	m.entries = m.entries[size-m.first:]
	m.first = size
	return nil
}

func TestAppenderRepeatsSafely(t *testing.T) {
	t.Parallel()
	dir, key, _ := newLog(t, 3)
	l, err := Open(dir, "audit.test")
	require.NoError(t, err)
	box := &memory{first: 3, entries: entries(3, 4), fail: true}
	a := NewAppender(l, box, func(error) {})
	require.Error(t, a.Flush(t.Context()))
	require.NoError(t, a.Flush(t.Context()))
	require.Empty(t, box.entries)
	require.EqualValues(t, 7, l.Size())

	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	box.entries = entries(7, 2)
	a = NewAppender(l, box, func(error) { cancel() })
	a.Wake()
	require.NoError(t, a.Run(ctx))
	require.EqualValues(t, 9, l.Size())
	require.NoError(t, l.Close())
	rep, err := Verify(dir, Options{Key: key})
	require.NoError(t, err)
	require.True(t, rep.OK(), rep.Problems)
}

// TestBuilderAgreesWithTree compares the verifier's tree with the stored one at
// every size.
func TestBuilderAgreesWithTree(t *testing.T) {
	t.Parallel()
	l, err := Open(t.TempDir(), "audit.test")
	require.NoError(t, err)
	defer l.Close()
	b := newBuilder()
	for i := range int64(100) {
		require.NoError(t, l.Append(i, entries(i, 1)))
		b.add(tlog.RecordHash(entry(i)))
		_, n, _ := l.Checkpoint()
		want, err := tlog.TreeHash(n, l)
		require.NoError(t, err)
		require.Equal(t, want, b.root())
	}
}

func FuzzVerifyStream(f *testing.F) {
	dir := f.TempDir()
	l, err := Open(dir, "audit.test")
	require.NoError(f, err)
	require.NoError(f, l.Append(0, entries(0, 3)))
	var out bytes.Buffer
	require.NoError(f, l.Export(&out))
	_, _, key := l.Checkpoint()
	require.NoError(f, l.Close())
	good := bytes.Clone(out.Bytes())
	f.Add(good)
	f.Add([]byte("\n"))
	f.Add([]byte("{}\n\naudit.test\n1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		rep, err := VerifyStream(bytes.NewReader(b), Options{Key: key})
		if err == nil && rep.OK() && !bytes.HasPrefix(b, good[:bytes.Index(good, []byte("\n\n"))]) && rep.Size > 0 {
			t.Fatalf("accepted %q", b)
		}
		_, err = json.Marshal(rep)
		require.NoError(t, err)
	})
}

func BenchmarkAppend(b *testing.B) {
	l, err := Open(b.TempDir(), "audit.test")
	require.NoError(b, err)
	defer l.Close()
	b.ReportAllocs()
	var n int64
	for b.Loop() {
		if err := l.Append(n, entries(n, 256)); err != nil {
			b.Fatal(err)
		}
		n += 256
	}
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "entries/s")
}
