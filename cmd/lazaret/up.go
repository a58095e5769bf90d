package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/lazaret/lazaret/internal/cli"
	"github.com/lazaret/lazaret/internal/config"
	"github.com/lazaret/lazaret/internal/driver/fanotify"
	"github.com/lazaret/lazaret/internal/node/supervisor"
)

// up is the supervisor: it owns the fanotify group and keeps the service
// running.
func up(ctx context.Context, c config.Config) error {
	if os.Geteuid() != 0 {
		return errors.New("protecting a host needs root: sudo lazaret up")
	}
	logger := newLogger(c)
	conf, err := config.Format(c)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("finding this program: %w", err)
	}
	group, _, err := fanotify.Open(fanotify.GroupConfig{})
	if err != nil {
		logger.ErrorContext(ctx, "no on-access protection", slog.Any("error", err))
	} else {
		defer group.Close()
	}
	s, err := supervisor.New(supervisor.Config{
		Command: []string{self, "service"},
		Env:     append(os.Environ(), cli.ServiceConfig+"="+string(conf)),
		Group:   group,
		Mode:    mode(c),
		Logger:  logger,
	})
	if err != nil {
		return err
	}
	defer s.Close()
	return s.Run(ctx)
}

func mode(c config.Config) supervisor.Mode {
	return supervisor.Mode{Closed: c.Failure.Mode == "closed", Hold: c.Failure.Hold}
}

func newLogger(c config.Config) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(strings.ToUpper(c.Log.Level))); err != nil {
		level = slog.LevelInfo // Validate has refused other words
	}
	o := &slog.HandlerOptions{Level: level}
	if c.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, o))
	}
	return slog.New(slog.NewTextHandler(os.Stderr, o))
}
