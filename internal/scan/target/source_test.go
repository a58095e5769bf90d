package target

import (
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

func TestStream(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s := &Stream{Reader: strings.NewReader("content"), Dir: t.TempDir(), Location: threat.Location{Path: "-"}}
	require.NoError(t, s.Walk(ctx, "", func(it Item) error {
		f, k, err := it.Open(ctx)
		require.NoError(t, err)
		defer f.Close()
		b, err := io.ReadAll(io.NewSectionReader(f, 0, 100))
		require.NoError(t, err)
		require.Equal(t, "content", string(b))
		require.EqualValues(t, 7, k.Size)
		return nil
	}))
	entries, err := os.ReadDir(s.Dir)
	require.NoError(t, err)
	require.Empty(t, entries, "the copy has no name")
	require.NoError(t, s.Walk(ctx, ".", func(Item) error { return errors.New("again") }))

	open := func(s *Stream) (err error) {
		require.NoError(t, s.Walk(ctx, "", func(it Item) error { _, _, err = it.Open(ctx); return nil }))
		return err
	}
	var p *Problem
	require.ErrorAs(t, open(&Stream{Reader: strings.NewReader("content"), Max: 6}), &p)
	require.Equal(t, threat.ReasonTooLarge, p.Reason.Code)
	require.NoError(t, open(&Stream{Reader: strings.NewReader("content"), Max: 7}))
	require.ErrorAs(t, open(&Stream{Reader: iotest.ErrReader(errors.New("broken pipe"))}), &p)
	require.Equal(t, threat.ReasonUnreadable, p.Reason.Code)
}

func TestImageResumes(t *testing.T) {
	t.Parallel()
	m := &Image{Name: "x", Layers: []Layer{{Digest: "a"}, {Digest: "b"}, {Digest: "c"}}, Limits: LayerLimits()}
	for after, want := range map[string]int{"": 3, "0": 2, "2": 0, "99": 0, "junk": 3, "-4": 3} {
		n := 0
		require.NoError(t, m.Walk(context.Background(), after, func(it Item) error {
			require.Equal(t, m.Limits, it.Limits)
			n++
			return nil
		}))
		require.Equal(t, want, n, after)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	require.ErrorIs(t, m.Walk(ctx, "", nil), context.Canceled)
}

type brokenImages struct{}

func (brokenImages) Layers(context.Context, string) ([]Layer, func() error, error) {
	return nil, nil, errors.New("index.json is damaged")
}

func TestSourcesErrors(t *testing.T) {
	t.Parallel()
	r := &Resolver{Images: brokenImages{}}
	_, _, err := r.Sources(context.Background(), api.ScanRequest{Paths: []string{"/x"}, Image: "app.tar"})
	require.EqualError(t, err, `opening image "app.tar": index.json is damaged`)
	sources, done, err := r.Sources(context.Background(), api.ScanRequest{Paths: []string{"/x", "/y"}})
	require.NoError(t, err)
	require.NoError(t, done())
	require.Len(t, sources, 2)
}
