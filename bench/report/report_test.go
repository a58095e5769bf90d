package report

import (
	"bytes"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestSeries(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		values           []float64
		min, median, max float64
	}{
		{[]float64{3}, 3, 3, 3},
		{[]float64{3, 1}, 1, 2, 3},
		{[]float64{5, 1, 3}, 1, 3, 5},
		{[]float64{4, 1, 3, 2}, 1, 2.5, 4},
	} {
		s := &Series{Values: c.values}
		require.Equal(t, c.min, s.Min())
		require.Equal(t, c.median, s.Median())
		require.Equal(t, c.max, s.Max())
	}
	require.True(t, math.IsNaN((&Series{}).Median()))
	s := &Series{}
	for i := range 100 {
		s.Add(float64(i + 1))
	}
	require.Equal(t, 10.0, s.Quantile(0.1))
	require.Equal(t, 1.0, s.Quantile(0))
	seconds, nanos := &Series{Unit: Seconds}, &Series{Unit: Nanoseconds}
	seconds.AddTime(1500 * time.Millisecond)
	nanos.AddTime(1500 * time.Nanosecond)
	require.Equal(t, []float64{1.5}, seconds.Values)
	require.Equal(t, []float64{1500}, nanos.Values)
}

func TestPromise(t *testing.T) {
	t.Parallel()
	two, ten := &Series{Unit: Seconds, Values: []float64{2}}, &Series{Unit: Seconds, Values: []float64{10}}
	for _, c := range []struct {
		p     Promise
		holds bool
		text  string
	}{
		{AtMost("a", ten, two, 5), true, "a: 10 s against 2 s, ratio 5, at most 5: holds"},
		{AtMost("a", ten, two, 4.9), false, "a: 10 s against 2 s, ratio 5, at most 4.90: FAILS"},
		{Faster("b", two, ten, 5), true, "b: 2 s against 10 s, ratio 5, at least 5: holds"},
		{Faster("b", ten, two, 1), false, "b: 10 s against 2 s, ratio 0.2, at least 1: FAILS"},
		{Promise{Text: "c", Ours: 201, Unit: Megabytes, Ratio: 201, Limit: 200}, false, "c: 201 MB, at most 200 MB: FAILS"},
		{Promise{Text: "d", Ours: 7, Unit: Seconds, Published: true}, true, "d: 7 s (published)"},
		{Faster("nothing measured", &Series{}, ten, 1), false, ""},
		{AtMost("nothing measured", ten, &Series{}, 1), false, ""},
	} {
		require.Equal(t, c.holds, c.p.Holds(), c.p.Text)
		if c.text != "" {
			require.Equal(t, c.text, c.p.String())
		}
	}
}

func sampleReport() *Report {
	p := &Part{Name: "scan", Title: "scanning"}
	s := p.Add("first | scan", "lazaret scan", Seconds)
	s.Add(1)
	s.Add(math.Inf(1))
	p.Describe("%d files", 3)
	p.Note("Noted.")
	p.Promise(AtMost("fast", s, &Series{Values: []float64{1}}, 2))
	return &Report{Started: time.Unix(0, 0), Parts: []*Part{p}}
}

func TestText(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	r := sampleReport()
	require.NoError(t, r.Parts[0].Text(&b))
	for _, want := range []string{"== scan: scanning", "3 files", "first | scan", "lazaret scan", "FAILS", "note: Noted."} {
		require.Contains(t, b.String(), want)
	}
	require.False(t, r.Holds())
	require.True(t, (&Report{}).Holds())
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "b.md")
	require.NoError(t, os.WriteFile(path, []byte("# before\n<!-- bench:scan -->\nold\n<!-- /bench:scan -->\n<!-- bench:memory -->\nkept\n<!-- /bench:memory -->\nafter\n"), 0o644))
	r := sampleReport()
	for range 2 { // as often as one likes
		require.NoError(t, r.Update(path))
		b, err := os.ReadFile(path)
		require.NoError(t, err)
		text := string(b)
		require.NotContains(t, text, "old")
		require.Contains(t, text, "| first \\| scan | 2 |")
		require.Contains(t, text, "kept")
		require.True(t, strings.HasPrefix(text, "# before\n<!-- bench:scan -->\nMeasured 1970-01-01 on "))
		require.True(t, strings.HasSuffix(text, "<!-- /bench:memory -->\nafter\n"))
		require.Equal(t, 1, strings.Count(text, "Measured"))
	}
	r.Parts[0].Name = "unknown"
	require.ErrorContains(t, r.Update(path), "there is no")
}

func TestNumber(t *testing.T) {
	t.Parallel()
	for v, want := range map[float64]string{0: "0", 1: "1", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 12345.6: "12346", 0.01234: "0.0123", math.Inf(1): "unlimited", math.NaN(): "none"} {
		require.Equal(t, want, number(v))
	}
}

func TestLook(t *testing.T) {
	t.Parallel()
	m := Look(t.Context(), t.TempDir())
	require.NotZero(t, m.Cores)
	require.NotZero(t, m.Memory)
	require.NotEmpty(t, m.Kernel)
	require.Equal(t, "unknown", m.Commit)
}
