// Package cli is the command line: one file per noun. Commands talk to the
// API; only scanning without a daemon, checking a configuration and verifying
// an audit log work alone.
package cli

import (
	"context"
	"io"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/config"
)

// Env is everything a command takes from its surroundings, so that tests can
// give it other ones.
type Env struct {
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// Terminal says whether Stderr is a terminal, where progress may be drawn.
	Terminal bool
	// Version of the program.
	Version string
	// Up runs the daemons until ctx ends.
	Up func(ctx context.Context, c config.Config) error
	// Service runs the supervised part of Up; only the supervisor starts it.
	Service func(ctx context.Context, c config.Config) error
	// Local scans without a daemon.
	Local LocalScanner
}

// LocalScanner scans in this process; sink gets every line but the summary.
type LocalScanner interface {
	Scan(ctx context.Context, c config.Config, r api.ScanRequest, sink func(api.ScanLine) error) (api.ScanSummary, error)
}
