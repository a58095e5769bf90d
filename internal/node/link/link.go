// Package link is a node's connection to its manager: it uploads the spool,
// reports the node's state, follows the manager's commands and fetches the
// node's configuration. Losing the manager stops none of the node's work.
package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"sync"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/task"
	"github.com/lazaret/lazaret/internal/threat"
)

// Spool is what is uploaded and remembered.
type Spool interface {
	Next(ctx context.Context, limit int) (api.Batch, int64, error)
	Ack(ctx context.Context, seq int64) error
	More() <-chan struct{}
}

// Commands carries out what the manager asks; it must tolerate repetition.
type Commands interface {
	Command(ctx context.Context, c api.Command)
}

// Config of a Link. All fields but ReportEvery are required.
type Config struct {
	Client   *api.Client
	Node     string
	Spool    Spool
	Commands Commands
	// Report returns the node's state now.
	Report func() api.Report
	// Configure is called with every new configuration; until it returns nil for
	// one, that one is fetched again.
	Configure  func(ctx context.Context, c api.NodeConfig) error
	Conditions *condition.Set
	Logger     *slog.Logger
	// ReportEvery is the time between reports, default 5 s.
	ReportEvery time.Duration
}

// Link is safe for concurrent use.
type Link struct {
	Config
	report chan struct{} // something worth reporting changed
	mu     sync.Mutex    // one fetch at a time
	etag   string        // of the configuration in force
}

// New returns a link; Run makes it work.
func New(c Config) *Link {
	if c.ReportEvery <= 0 {
		c.ReportEvery = 5 * time.Second
	}
	return &Link{Config: c, report: make(chan struct{}, 1)}
}

// batchSize bounds one upload.
const batchSize = 200

func (l *Link) path(rest string) string {
	return api.Prefix + "/nodes/" + url.PathEscape(l.Node) + "/" + rest
}

// Run keeps the link until ctx ends.
func (l *Link) Run(ctx context.Context) error {
	return task.Run(ctx, l.upload, l.sendReports, l.follow, l.configure)
}

// FetchNow fetches the configuration and returns when it is in force.
func (l *Link) FetchNow(ctx context.Context) error { return l.fetchConfig(ctx) }

// ReportNow makes the link report soon.
func (l *Link) ReportNow() {
	select {
	case l.report <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// upload sends batches until the spool is empty, then waits for more. Failures
// are retried for ever with growing pauses: the spool keeps everything.
func (l *Link) upload(ctx context.Context) error {
	delay := time.Duration(0)
	for {
		sent, err := l.uploadOne(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			delay = min(max(2*delay, 100*time.Millisecond), 15*time.Second)
			l.reachable(ctx, err)
			if err := pause(ctx, delay); err != nil {
				return err
			}
			continue
		}
		delay = 0
		if sent {
			l.reachable(ctx, nil)
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.Spool.More():
		case <-time.After(time.Minute):
		}
	}
}

func (l *Link) uploadOne(ctx context.Context) (sent bool, err error) {
	b, seq, err := l.Spool.Next(ctx, batchSize)
	if err != nil || b.ID == "" {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	if err := l.Client.Post(ctx, l.path("batches"), b, nil); err != nil {
		return false, fmt.Errorf("uploading batch: %w", err)
	}
	return true, l.Spool.Ack(ctx, seq)
}

func (l *Link) sendReports(ctx context.Context) error {
	for {
		report := l.Report()
		once, cancel := context.WithTimeout(ctx, 10*time.Second)
		err := l.Client.Post(once, l.path("report"), report, nil)
		cancel()
		l.reachable(ctx, err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-l.report:
		case <-time.After(l.ReportEvery):
		}
	}
}

// reachable keeps the condition that says whether the manager answers.
func (l *Link) reachable(ctx context.Context, err error) {
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		l.Conditions.Clear("manager_unreachable")
		return
	}
	l.Logger.WarnContext(ctx, "manager did not accept an upload", slog.Any("error", err))
	l.Conditions.Raise(threat.Condition{
		Code: "manager_unreachable", Severity: threat.Medium,
		Text:   "The manager did not accept the last upload: " + err.Error(),
		Advice: "Protection goes on and findings are kept on this node. Check that the manager runs and is reachable.",
	})
}

// follow handles commands in order. A command that was handled is answered
// through the spool, so a repeated delivery is harmless.
func (l *Link) follow(ctx context.Context) error {
	for {
		err := l.Client.Follow(ctx, l.path("commands"), "", func(ev api.Event) error {
			var c api.Command
			if err := json.Unmarshal(ev.Data, &c); err != nil {
				l.Logger.ErrorContext(ctx, "command is not readable", slog.String("event", ev.ID), slog.Any("error", err))
				return nil
			}
			l.Commands.Command(ctx, c)
			return nil
		})
		if ctx.Err() != nil {
			return ctx.Err()
		}
		l.reachable(ctx, err)
		if err := pause(ctx, 5*time.Second); err != nil {
			return err
		}
	}
}

// configure fetches the configuration now and then, should a command that says
// so be late.
func (l *Link) configure(ctx context.Context) error {
	for {
		wait := time.Minute
		if err := l.fetchConfig(ctx); err != nil && ctx.Err() == nil {
			l.Logger.WarnContext(ctx, "configuration was not fetched", slog.Any("error", err))
			wait = 2 * time.Second
		}
		if err := pause(ctx, wait); err != nil {
			return err
		}
	}
}

func (l *Link) fetchConfig(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var c api.NodeConfig
	tag := l.etag
	opts := []api.Option{api.ETag(&tag)}
	if l.etag != "" {
		opts = append(opts, api.IfNoneMatch(l.etag))
	}
	switch err := l.Client.Get(ctx, l.path("config"), &c, opts...); {
	case errors.Is(err, api.ErrNotModified):
		return nil
	case err != nil:
		return fmt.Errorf("fetching configuration: %w", err)
	}
	if err := l.Configure(ctx, c); err != nil {
		return fmt.Errorf("applying configuration: %w", err)
	}
	l.etag = tag
	return nil
}
