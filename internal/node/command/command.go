// Package command carries out what the manager asks of a node. Commands are
// delivered at least once and answered through the spool; one that was
// answered is not carried out again.
package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/response"
	"github.com/lazaret/lazaret/internal/threat"
)

// Results remembers which commands were answered.
type Results interface {
	Answered(ctx context.Context, command string) (bool, error)
	AddResult(ctx context.Context, r api.CommandResult) error
	Forget(ctx context.Context, finding string) error
}

// Decider carries decisions on findings out and reports quarantine items.
type Decider interface {
	Decide(ctx context.Context, f threat.Finding, action threat.Action, by, reason string) (threat.Finding, error)
	Item(ctx context.Context, id string) error
}

// Restorer puts quarantine items back.
type Restorer interface {
	Restore(ctx context.Context, a api.RestoreArgs, allowed bool) (api.RestoreResult, error)
}

// Vault deletes and exports quarantine items.
type Vault interface {
	Get(ctx context.Context, id string) (response.Item, error)
	Purge(ctx context.Context, id string) (response.Item, error)
	Export(ctx context.Context, id, password string, w io.Writer) error
}

// Scans starts and cancels scan jobs.
type Scans interface {
	Start(ctx context.Context, r api.ScanRequest) (api.Scan, error)
	Cancel(ctx context.Context, id string) error
}

// Config of a Runner. All fields are required.
type Config struct {
	Node     string
	Client   *api.Client // for uploads
	Results  Results
	Decider  Decider
	Restorer Restorer
	Vault    Vault
	Scans    Scans
	// Allowed reports whether a person declared an object harmless.
	Allowed func(threat.Hash) bool
	// Refresh fetches the configuration now: an allow-listing that came with a
	// restore must be known before the file is back.
	Refresh func(ctx context.Context) error
	Logger  *slog.Logger
}

// Runner implements link.Commands.
type Runner struct{ Config }

// New returns a runner.
func New(c Config) *Runner { return &Runner{c} }

// limit bounds one command.
const limit = 5 * time.Minute

// Command carries a command out and answers it.
func (r *Runner) Command(ctx context.Context, c api.Command) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	done, err := r.Results.Answered(ctx, c.ID)
	if err != nil {
		r.Logger.ErrorContext(ctx, "command was not looked up", slog.String("command", c.ID), slog.Any("error", err))
		return
	}
	if done {
		return
	}
	detail, err := r.bounded(ctx, c)
	result := api.CommandResult{Command: c.ID, OK: err == nil, Done: time.Now().UTC()}
	if err != nil {
		result.Error = err.Error()
	}
	if detail != nil {
		if result.Detail, err = json.Marshal(detail); err != nil {
			result.Detail = nil
		}
	}
	// The answer is kept even if the time of the command itself is over.
	if err := r.Results.AddResult(context.WithoutCancel(ctx), result); err != nil {
		r.Logger.ErrorContext(ctx, "command was carried out but not answered", slog.String("command", c.ID), slog.Any("error", err))
	}
}

// bounded gives up on a command that does not end, as one about a file in a
// container's mounts may (FUSE): the commands behind it must not wait for ever.
func (r *Runner) bounded(ctx context.Context, c api.Command) (any, error) {
	type outcome struct {
		detail any
		err    error
	}
	done := make(chan outcome, 1)
	go func() {
		detail, err := r.run(ctx, c)
		done <- outcome{detail, err}
	}()
	select {
	case o := <-done:
		return o.detail, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-done:
		return o.detail, o.err
	case <-time.After(grace):
		return nil, fmt.Errorf("the command does not end: %w", context.Cause(ctx))
	}
}

// grace is how long a command may take to notice that its time is over.
const grace = 10 * time.Second

func (r *Runner) run(ctx context.Context, c api.Command) (any, error) {
	switch c.Verb {
	case api.VerbConfig:
		return nil, r.Refresh(ctx)
	case api.VerbDecide:
		return with(c, func(a api.DecideArgs) (any, error) { return r.decide(ctx, c, a) })
	case api.VerbRestore:
		return with(c, func(a api.RestoreArgs) (any, error) { return r.restore(ctx, a) })
	case api.VerbPurge:
		return with(c, func(a api.PurgeArgs) (any, error) {
			if _, err := r.Vault.Purge(ctx, a.Item); err != nil {
				return nil, err
			}
			return nil, r.Decider.Item(ctx, a.Item)
		})
	case api.VerbExport:
		return with(c, func(a api.ExportArgs) (any, error) { return nil, r.export(ctx, a) })
	case api.VerbScan:
		return with(c, func(a api.ScanRequest) (any, error) { return r.Scans.Start(ctx, a) })
	case api.VerbCancelScan:
		return with(c, func(a api.ScanRef) (any, error) { return nil, r.Scans.Cancel(ctx, a.ID) })
	}
	return nil, fmt.Errorf("this node does not know the command %q: update it", c.Verb)
}

func with[T any](c api.Command, f func(T) (any, error)) (any, error) {
	var args T
	if err := json.Unmarshal(c.Args, &args); err != nil {
		return nil, fmt.Errorf("reading the command's arguments: %w", err)
	}
	return f(args)
}

func (r *Runner) decide(ctx context.Context, c api.Command, a api.DecideArgs) (any, error) {
	switch a.Action {
	case api.Resolve, api.Dismiss:
		return nil, r.Results.Forget(ctx, a.Finding.ID)
	case threat.Allow:
		if err := r.Refresh(ctx); err != nil {
			return nil, err
		}
		return nil, r.Results.Forget(ctx, a.Finding.ID)
	}
	f, err := r.Decider.Decide(ctx, a.Finding, a.Action, c.By, c.Reason)
	return f, err
}

func (r *Runner) restore(ctx context.Context, a api.RestoreArgs) (any, error) {
	if err := r.Refresh(ctx); err != nil {
		return nil, err
	}
	item, err := r.Vault.Get(ctx, a.Item)
	if err != nil {
		return nil, err
	}
	res, err := r.Restorer.Restore(ctx, a, r.Allowed(item.Object))
	if err != nil {
		return res, err
	}
	return res, r.Decider.Item(ctx, a.Item)
}

// export streams the archive to the upload a person waits for.
func (r *Runner) export(ctx context.Context, a api.ExportArgs) error {
	pr, pw := io.Pipe()
	go func() { pw.CloseWithError(r.Vault.Export(ctx, a.Item, a.Password, pw)) }()
	defer pr.Close()
	path := api.Prefix + "/nodes/" + url.PathEscape(r.Node) + "/uploads/" + url.PathEscape(a.Upload)
	err := r.Client.Do(ctx, http.MethodPut, path, io.Reader(pr), nil, api.Header("Content-Type", "application/zip"))
	if err != nil && errors.Is(err, context.Canceled) {
		return ctx.Err()
	}
	return err
}
