// Package local is the node's own API on a unix socket that only root may use:
// scans whose results stream to the caller without a detour over the manager.
package local

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/scan"
)

// Scanner runs one scan.
type Scanner interface {
	Run(ctx context.Context, q api.ScanRequest, o scan.Options, sink func(api.ScanLine) error) (api.ScanSummary, error)
}

// Config of a Server. All fields are required.
type Config struct {
	Socket  string
	Scanner Scanner
	// Found is told about files with threats.
	Found  func(ctx context.Context, h scan.Hit) error
	Logger *slog.Logger
}

// Server serves the local API.
type Server struct{ Config }

// New returns a server.
func New(c Config) *Server { return &Server{c} }

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Dir(s.Socket), 0o755); err != nil {
		return fmt.Errorf("serving local API: %w", err)
	}
	if err := os.Remove(s.Socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("serving local API: %w", err)
	}
	l, err := net.Listen("unix", s.Socket)
	if err != nil {
		return fmt.Errorf("serving local API: %w", err)
	}
	if err := os.Chmod(s.Socket, 0o600); err != nil {
		return fmt.Errorf("serving local API: %w", err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/scan", s.scan)
	server := &http.Server{
		Handler: mux, ReadHeaderTimeout: 10 * time.Second,
		BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog:    slog.NewLogLogger(s.Logger.Handler(), slog.LevelWarn),
	}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serving local API: %w", err)
	}
	return ctx.Err()
}

// maxRequest bounds a scan request.
const maxRequest = 4 << 20

// scan answers with one JSON line per object; the last one is the summary. An
// error after the first line is a line of its own.
func (s *Server) scan(w http.ResponseWriter, r *http.Request) {
	var q api.ScanRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxRequest)).Decode(&q); err != nil {
		problem(w, http.StatusBadRequest, "reading the scan request: "+err.Error())
		return
	}
	for _, p := range q.Paths {
		if !filepath.IsAbs(p) {
			problem(w, http.StatusBadRequest, fmt.Sprintf("path %q is not absolute", p))
			return
		}
	}
	w.Header().Set("Content-Type", "application/jsonl")
	out := json.NewEncoder(w)
	out.SetEscapeHTML(false)
	flush := http.NewResponseController(w)
	last := time.Now()
	started := false
	o := scan.Options{Found: s.Found}
	if r.URL.Query().Get("progress") != "" {
		o.Progress = 200 * time.Millisecond
	}
	_, err := s.Scanner.Run(r.Context(), q, o, func(l api.ScanLine) error {
		started = true
		if err := out.Encode(l); err != nil {
			return err
		}
		if now := time.Now(); l.Kind != api.LineObject || now.Sub(last) > 100*time.Millisecond {
			last = now
			return flush.Flush()
		}
		return nil
	})
	switch {
	case err == nil || r.Context().Err() != nil:
	case !started:
		problem(w, http.StatusUnprocessableEntity, err.Error())
	default:
		s.Logger.WarnContext(r.Context(), "scan ended early", slog.Any("error", err))
		_ = out.Encode(api.ScanLine{Kind: api.LineError, Path: err.Error()}) // the caller may be gone
	}
}

func problem(w http.ResponseWriter, status int, detail string) {
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(api.Problem{ // the caller may be gone
		Type: api.ProblemInvalid, Title: http.StatusText(status), Status: status, Detail: detail,
	})
}
