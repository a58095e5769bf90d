package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/url"

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
