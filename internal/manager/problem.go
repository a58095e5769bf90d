package manager

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"syscall"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/audit"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

// titles are the stable one-line texts of problem types.
var titles = map[string]string{
	api.ProblemInvalid:      "The request is not valid",
	api.ProblemUnknown:      "Log in or send a token",
	api.ProblemDenied:       "Not allowed",
	api.ProblemNotFound:     "Not found",
	api.ProblemMethod:       "The method is not allowed here",
	api.ProblemConflict:     "Conflict with the present state",
	api.ProblemRefused:      "Refused by a rule",
	api.ProblemPrecondition: "Changed meanwhile",
	api.ProblemTooLarge:     "Too large",
	api.ProblemLimited:      "Too many attempts",
	api.ProblemInternal:     "Internal error",
	api.ProblemUnavailable:  "Not available now",
	api.ProblemTimeout:      "No answer in time",
}

func problem(status int, kind, format string, args ...any) *api.Problem {
	return &api.Problem{Type: kind, Title: titles[kind], Status: status, Detail: fmt.Sprintf(format, args...)}
}

func invalid(format string, args ...any) *api.Problem {
	return problem(http.StatusUnprocessableEntity, api.ProblemInvalid, format, args...)
}

func refused(format string, args ...any) *api.Problem {
	return problem(http.StatusConflict, api.ProblemRefused, format, args...)
}

func conflict(format string, args ...any) *api.Problem {
	return problem(http.StatusConflict, api.ProblemConflict, format, args...)
}

// limited is a problem with the time to wait.
type limited struct {
	*api.Problem
	wait time.Duration
}

func tooMany(wait time.Duration, format string, args ...any) error {
	return limited{problem(http.StatusTooManyRequests, api.ProblemLimited, format, args...), wait}
}

// Unwrap lets errors.As find the problem.
func (l limited) Unwrap() error { return l.Problem }

// GetHeaders adds Retry-After; the name is the web framework's.
func (l limited) GetHeaders() http.Header {
	return http.Header{"Retry-After": {strconv.Itoa(int(math.Ceil(l.wait.Seconds())))}}
}

// conditionFull is cleared by the next change that succeeds.
const conditionFull = "manager_disk_full"

// kindOf names the problem type of a status for errors that have none.
func kindOf(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return api.ProblemUnknown
	case http.StatusForbidden:
		return api.ProblemDenied
	case http.StatusNotFound:
		return api.ProblemNotFound
	case http.StatusMethodNotAllowed:
		return api.ProblemMethod
	case http.StatusConflict:
		return api.ProblemConflict
	case http.StatusPreconditionFailed, http.StatusPreconditionRequired:
		return api.ProblemPrecondition
	case http.StatusRequestEntityTooLarge:
		return api.ProblemTooLarge
	case http.StatusTooManyRequests:
		return api.ProblemLimited
	case http.StatusServiceUnavailable:
		return api.ProblemUnavailable
	case http.StatusGatewayTimeout:
		return api.ProblemTimeout
	}
	if status >= 500 {
		return api.ProblemInternal
	}
	return api.ProblemInvalid
}

// asProblem maps an error to the answer, at the one place where that is done.
// What is not known is internal: logged, and named only by the request's id.
func (m *Manager) asProblem(ctx context.Context, err error) *api.Problem {
	var p *api.Problem
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &p):
		return p
	case errors.As(err, &large):
		return problem(http.StatusRequestEntityTooLarge, api.ProblemTooLarge, "the body is larger than %d bytes", large.Limit)
	case errors.Is(err, store.ErrNotFound), errors.Is(err, audit.ErrNoEntry):
		return problem(http.StatusNotFound, api.ProblemNotFound, "%v", err)
	case errors.Is(err, store.ErrConflict):
		return conflict("%v", err)
	case errors.Is(err, store.ErrPrecondition):
		return problem(http.StatusPreconditionFailed, api.ProblemPrecondition, "%v: read it again and repeat the change", err)
	case errors.Is(err, store.ErrKeyReused):
		return invalid("%v", err)
	case errors.Is(err, sqlite.ErrFull), errors.Is(err, syscall.ENOSPC):
		m.Conditions.Raise(threat.Condition{
			Code: conditionFull, Severity: threat.Critical,
			Text:   "The file system that holds the manager's state is full; changes are refused.",
			Advice: "Free space. Nodes keep their findings and send them again; nothing is lost.",
		})
		return problem(http.StatusServiceUnavailable, api.ProblemUnavailable, "the manager's file system is full: free space and repeat the call")
	case errors.Is(err, sqlite.ErrCorrupt):
		m.Conditions.Raise(threat.Condition{
			Code: "manager_database_damaged", Severity: threat.Critical,
			Text:   "The manager's database is damaged: " + err.Error(),
			Advice: "Stop the manager and restore manager.db from a backup; the audit log beside it says what happened since.",
		})
	case ctx.Err() != nil:
		return problem(http.StatusServiceUnavailable, api.ProblemUnavailable, "the request was cancelled")
	}
	m.Logger.ErrorContext(ctx, "request failed", slog.String("request_id", callOf(ctx).id), slog.Any("error", err))
	return problem(http.StatusInternalServerError, api.ProblemInternal, "the manager could not do this; its log says why under request %s", callOf(ctx).id)
}
