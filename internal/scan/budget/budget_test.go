package budget

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/condition"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
}

func pressure(some float64) string {
	return fmt.Sprintf("some avg10=%.2f avg60=0.73 avg300=1.19 total=22612418\nfull avg10=99.00 avg60=0.00 avg300=0.00 total=0\n", some)
}

func TestOver(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name                string
		cpu, io, own, ownIO float64
		load                string
		want                bool
		condition           bool
	}{
		{"calm", 10, 10, 10, 10, "", false, false},
		{"processors", 70, 0, 0, 0, "", true, false},
		{"storage", 0, 50, 0, 0, "", true, false},
		{"own group", 0, 0, 70, 0, "", true, false},
		{"own group's storage", 0, 0, 0, 50, "", true, false},
		{"no pressure, calm", -1, 0, 0, 0, "0.10 0.20 0.30 1/99 7\n", false, true},
		{"no pressure, busy", -1, 0, 0, 0, "900.10 0.20 0.30 1/99 7\n", true, true},
		{"nothing known", -1, 0, 0, 0, "", false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			proc, group := t.TempDir(), t.TempDir()
			put(t, proc+"/self/cgroup", "1:cpu:/x\n0::/system/lazaret\n")
			if c.cpu >= 0 {
				put(t, proc+"/pressure/cpu", pressure(c.cpu))
				put(t, proc+"/pressure/io", pressure(c.io))
			}
			put(t, group+"/system/lazaret/cpu.pressure", pressure(c.own))
			put(t, group+"/system/lazaret/io.pressure", pressure(c.ownIO))
			if c.load != "" {
				put(t, proc+"/loadavg", c.load)
			}
			var conditions condition.Set
			b := New(Config{Proc: proc, Cgroup: group, Conditions: &conditions})
			require.Equal(t, c.want, b.Over())
			require.Equal(t, c.condition, len(conditions.List()) == 1)
		})
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	proc := t.TempDir()
	put(t, proc+"/pressure/cpu", pressure(90))
	put(t, proc+"/pressure/io", pressure(0))
	b := New(Config{Proc: proc, Cgroup: t.TempDir(), Conditions: &condition.Set{}, Every: 5 * time.Millisecond, Hold: 100 * time.Millisecond})
	start := time.Now()
	require.NoError(t, b.Wait(context.Background(), time.Hour))
	require.GreaterOrEqual(t, time.Since(start), 100*time.Millisecond, "held, but not for ever")

	start = time.Now()
	require.NoError(t, b.Wait(context.Background(), time.Millisecond))
	require.Less(t, time.Since(start), 90*time.Millisecond, "short work, short pause")

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, b.Wait(ctx, time.Hour), context.Canceled)

	b.cfg.Hold = time.Minute
	go func() {
		time.Sleep(20 * time.Millisecond)
		os.WriteFile(proc+"/pressure/cpu.new", []byte(pressure(1)), 0o644)
		os.Rename(proc+"/pressure/cpu.new", proc+"/pressure/cpu")
	}()
	require.NoError(t, b.Wait(context.Background(), time.Hour))
}

func TestThisMachine(t *testing.T) {
	t.Parallel()
	New(Config{Conditions: &condition.Set{}}).Over() // whatever it says, it must not fail
}

func FuzzPressure(f *testing.F) {
	f.Add([]byte(pressure(12.5)))
	f.Add([]byte("0.10 0.20 0.30 1/99 7\n"))
	f.Add([]byte("0::/../../x\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if x, err := parsePressure(b); err == nil && !(x >= 0 && x <= 100) {
			t.Fatalf("%v is not a percentage", x)
		}
		if x, err := parseLoad(b); err == nil && !(x >= 0) {
			t.Fatalf("%v is not a load", x)
		}
		if p, ok := parseCgroup(b); ok && (p[0] != '/' || filepath.Clean(p) != p) {
			t.Fatalf("%q leads elsewhere", p)
		}
	})
}
