package local

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/threat"
)

// fakeScanner sends two objects and a summary, and fails where it is told to.
type fakeScanner struct {
	before, after error
	block         bool // until the caller is gone
	options       scan.Options
	ended         chan struct{}
}

func (f *fakeScanner) Run(ctx context.Context, q api.ScanRequest, o scan.Options, sink func(api.ScanLine) error) (api.ScanSummary, error) {
	f.options = o
	if f.before != nil {
		return api.ScanSummary{}, f.before
	}
	for _, p := range q.Paths {
		if err := sink(api.ScanLine{Kind: "object", Path: p, Verdict: threat.Clean}); err != nil {
			return api.ScanSummary{}, err
		}
	}
	if f.block {
		defer close(f.ended)
		if err := sink(api.ScanLine{Kind: "progress"}); err != nil { // is flushed
			return api.ScanSummary{}, err
		}
		<-ctx.Done()
		return api.ScanSummary{}, ctx.Err()
	}
	if f.after != nil {
		return api.ScanSummary{}, f.after
	}
	sum := api.ScanSummary{Files: int64(len(q.Paths))}
	return sum, sink(api.ScanLine{Kind: "summary", Summary: &sum})
}

// serve starts a server and returns a client of it.
func serve(t *testing.T, f *fakeScanner) *api.Client {
	t.Helper()
	dir, err := os.MkdirTemp("", "lzl") // socket paths are short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "run", "node.sock")
	require.NoError(t, os.MkdirAll(filepath.Dir(socket), 0o755))
	require.NoError(t, os.WriteFile(socket, nil, 0o644), "left by a crash")
	s := New(Config{
		Socket: socket, Scanner: f, Logger: slog.New(slog.DiscardHandler),
		Found: func(context.Context, scan.Hit) error { return nil },
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
	})
	require.Eventually(t, func() bool {
		info, err := os.Stat(socket)
		return err == nil && info.Mode() == os.ModeSocket|0o600
	}, 5*time.Second, time.Millisecond, "a socket for root only")
	c, err := api.NewClient(api.ClientConfig{Socket: socket})
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func post(t *testing.T, c *api.Client, path, body string) ([]api.ScanLine, error) {
	t.Helper()
	resp, err := c.Open(t.Context(), http.MethodPost, path, strings.NewReader(body))
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var lines []api.ScanLine
	for text := range bytes.Lines(b) {
		var l api.ScanLine
		require.NoError(t, json.Unmarshal(text, &l))
		lines = append(lines, l)
	}
	return lines, nil
}

func TestScan(t *testing.T) {
	t.Parallel()
	f := &fakeScanner{}
	lines, err := post(t, serve(t, f), "/v1/scan", `{"paths":["/a","/b<&>"]}`)
	require.NoError(t, err)
	require.Len(t, lines, 3)
	require.Equal(t, "/b<&>", lines[1].Path)
	require.EqualValues(t, 2, lines[2].Summary.Files)
	require.Zero(t, f.options.Progress)
	require.NotNil(t, f.options.Found)
}

func TestProgress(t *testing.T) {
	t.Parallel()
	f := &fakeScanner{}
	_, err := post(t, serve(t, f), "/v1/scan?progress=1", `{"paths":["/a"]}`)
	require.NoError(t, err)
	require.Positive(t, f.options.Progress)
}

// TestErrors: what is wrong before the first line is a problem with a status,
// after it a line of its own: never an end that looks like a result.
func TestErrors(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		scanner fakeScanner
		body    string
		status  int
		detail  string
	}{
		"no JSON":       {body: "x", status: http.StatusBadRequest, detail: "reading the scan request"},
		"relative path": {body: `{"paths":["a"]}`, status: http.StatusBadRequest, detail: `"a" is not absolute`},
		"too large":     {body: `{"paths":["/` + strings.Repeat("a", maxRequest) + `"]}`, status: http.StatusBadRequest, detail: "too large"},
		"no container":  {scanner: fakeScanner{before: errors.New("no container is called x")}, body: `{"container":"x"}`, status: http.StatusUnprocessableEntity, detail: "no container is called x"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := post(t, serve(t, &c.scanner), "/v1/scan", c.body)
			var p *api.Problem
			require.ErrorAs(t, err, &p)
			require.Equal(t, c.status, p.Status)
			require.Contains(t, p.Detail, c.detail)
		})
	}
	lines, err := post(t, serve(t, &fakeScanner{after: errors.New("the disk is gone")}), "/v1/scan", `{"paths":["/a"]}`)
	require.NoError(t, err)
	require.Len(t, lines, 2)
	require.Equal(t, "error", lines[1].Kind)
	require.Equal(t, "the disk is gone", lines[1].Path)
}

// TestCallerGone: the scan ends with its caller.
func TestCallerGone(t *testing.T) {
	t.Parallel()
	f := &fakeScanner{block: true, ended: make(chan struct{})}
	c := serve(t, f)
	ctx, cancel := context.WithCancel(t.Context())
	resp, err := c.Open(ctx, http.MethodPost, "/v1/scan", strings.NewReader(`{"paths":["/a"]}`))
	require.NoError(t, err)
	cancel()
	select {
	case <-f.ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the scan goes on for nobody")
	}
	_ = resp.Body.Close()
}

// TestEnd: the end of the server ends scans.
func TestEnd(t *testing.T) {
	t.Parallel()
	f := &fakeScanner{block: true, ended: make(chan struct{})}
	t.Run("server", func(t *testing.T) {
		resp, err := serve(t, f).Open(t.Context(), http.MethodPost, "/v1/scan", strings.NewReader(`{"paths":["/a"]}`))
		require.NoError(t, err)
		t.Cleanup(func() { _ = resp.Body.Close() })
	})
	select {
	case <-f.ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the scan outlives the server")
	}
}
