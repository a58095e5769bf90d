package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/lazaret/lazaret/api"
)

// The exit codes; 0 to 3 are ClamAV's contract with scripts.
const (
	ExitClean       = 0
	ExitThreat      = 1
	ExitError       = 2
	ExitPartial     = 3   // something could not be inspected completely
	ExitUnreachable = 10  // no daemon answers
	ExitDenied      = 11  // not logged in, or no role allows it
	ExitRefused     = 12  // a policy or rule of the product forbids it
	ExitCancelled   = 130 // interrupted
)

// exitError carries an exit code that is a result, not a failure: nothing is
// printed for it.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", int(e)) }

// usageError is a wrong command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// refusal is an action that a rule of the product forbids and a person can
// insist on.
type refusal struct {
	err    error
	advice string
}

func (r refusal) Error() string { return r.err.Error() + "; " + r.advice }
func (r refusal) Unwrap() error { return r.err }

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var own exitError
	var p *api.Problem
	var no refusal
	switch {
	case err == nil:
		return ExitClean
	case errors.As(err, &own):
		return int(own)
	case errors.Is(err, context.Canceled):
		return ExitCancelled
	case errors.Is(err, api.ErrUnreachable):
		return ExitUnreachable
	case errors.As(err, &no):
		return ExitRefused
	case errors.As(err, &p):
		switch {
		case p.Status == 401 || p.Status == 403:
			return ExitDenied
		case p.Type == api.ProblemRefused:
			return ExitRefused
		}
	}
	return ExitError
}

// sentence is what a person reads for an error: what happened and, where it is
// known, what to do.
func sentence(err error) string {
	var p *api.Problem
	switch {
	case errors.Is(err, context.Canceled):
		return "interrupted"
	case errors.Is(err, api.ErrUnreachable):
		return err.Error() + "; start it with `lazaret up` or name another with --server"
	case errors.As(err, &p):
		switch p.Status {
		case 401:
			return p.Error() + "; run `lazaret login` or set LAZARET_TOKEN"
		case 500:
			return p.Error() + " (request " + p.RequestID + ")"
		}
	}
	return err.Error()
}
