package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"time"

	"github.com/lazaret/lazaret/api"
)

// collect reads a paged list, up to limit items; 0 means all.
func collect[T any](ctx context.Context, c *api.Client, path string, limit int, opts ...api.Option) ([]T, error) {
	list := []T{}
	for item, err := range api.List[T](ctx, c, path, opts...) {
		if err != nil {
			return nil, err
		}
		list = append(list, item)
		if limit > 0 && len(list) == limit {
			break
		}
	}
	return list, nil
}

func escape(s string) string { return url.PathEscape(s) }

// must is for what can only fail by a programming error, such as marking a flag
// that does not exist.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

func jsonBody(v any) (io.Reader, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encoding request: %w", err)
	}
	return bytes.NewReader(b), nil
}

// awaitCommand waits until a node has answered a command.
func awaitCommand(ctx context.Context, client *api.Client, id string, wait time.Duration) (api.CommandState, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, wait, fmt.Errorf("the node did not answer within %s; the command stays pending (%s)", wait, id))
	defer cancel()
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		var s api.CommandState
		if err := client.Get(ctx, api.Prefix+"/commands/"+escape(id), &s); err != nil {
			return s, err
		}
		if s.Result != nil {
			if !s.Result.OK {
				return s, errors.New(s.Result.Error)
			}
			return s, nil
		}
		select {
		case <-ctx.Done():
			return s, context.Cause(ctx)
		case <-time.After(delay):
		}
	}
}

// maxInput bounds what a command reads into memory.
const maxInput = 16 << 20

// readInput reads a file, or standard input for "-".
func (a *app) readInput(path string) ([]byte, error) {
	r := a.Stdin
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r = f
	}
	b, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	if err == nil && len(b) > maxInput {
		err = fmt.Errorf("%s: more than %d bytes", path, maxInput)
	}
	return b, err
}
