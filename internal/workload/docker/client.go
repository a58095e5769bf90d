package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// client speaks the part of the Engine API that is needed: JSON over HTTP over
// a unix socket. Paths have no version in front, so the daemon uses its own.
type client struct {
	http *http.Client
}

const (
	callTimeout = 10 * time.Second
	maxReply    = 64 << 20
)

var errNotFound = errors.New("no such object")

func newClient(socket string) *client {
	var d net.Dialer
	return &client{http: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
	}}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// open sends a GET request and returns the body of a successful reply.
func (c *client) open(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://docker"+path+"?"+query.Encode(), nil)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	res, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("asking for %s: %w", path, err)
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, nil
	}
	text, _ := io.ReadAll(io.LimitReader(res.Body, 1024))
	_ = res.Body.Close()
	if res.StatusCode == http.StatusNotFound {
		return nil, fmt.Errorf("asking for %s: %w", path, errNotFound)
	}
	return nil, fmt.Errorf("asking for %s: %s: %s", path, res.Status, strings.TrimSpace(string(text)))
}

func (c *client) get(ctx context.Context, path string, query url.Values, v any) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	body, err := c.open(ctx, path, query)
	if err != nil {
		return err
	}
	defer func() { _ = body.Close() }()
	if err := json.NewDecoder(io.LimitReader(body, maxReply)).Decode(v); err != nil {
		return fmt.Errorf("reading the reply for %s: %w", path, err)
	}
	return nil
}

// container is the reply of GET /containers/ID/json, as far as it is used.
type container struct {
	ID    string `json:"Id"`
	Name  string `json:"Name"`
	Image string `json:"Image"` // id of the image
	State struct {
		Running bool `json:"Running"`
		PID     int  `json:"Pid"`
	} `json:"State"`
	Config struct {
		Image  string            `json:"Image"` // as the user named it
		Labels map[string]string `json:"Labels"`
	} `json:"Config"`
	GraphDriver struct {
		Data struct {
			LowerDir string `json:"LowerDir"`
		} `json:"Data"`
	} `json:"GraphDriver"`
}

func (c *client) inspect(ctx context.Context, id string) (container, error) {
	var out container
	err := c.get(ctx, "/containers/"+url.PathEscape(id)+"/json", nil, &out)
	return out, err
}

// running lists the ids of running containers.
func (c *client) running(ctx context.Context) ([]string, error) {
	var list []struct {
		ID string `json:"Id"`
	}
	if err := c.get(ctx, "/containers/json", nil, &list); err != nil {
		return nil, err
	}
	out := make([]string, len(list))
	for i := range list {
		out[i] = list[i].ID
	}
	return out, nil
}

// diffIDs returns the digests of an image's uncompressed layers, bottom first.
func (c *client) diffIDs(ctx context.Context, image string) ([]string, error) {
	var out struct {
		RootFS struct {
			Layers []string `json:"Layers"`
		} `json:"RootFS"`
	}
	err := c.get(ctx, "/images/"+url.PathEscape(image)+"/json", nil, &out)
	return out.RootFS.Layers, err
}

// event is one element of GET /events.
type event struct {
	Type   string `json:"Type"`
	Action string `json:"Action"`
	Actor  struct {
		ID string `json:"ID"`
	} `json:"Actor"`
}

// events opens the stream of container events.
func (c *client) events(ctx context.Context) (io.ReadCloser, error) {
	filters, err := json.Marshal(map[string][]string{
		"type": {"container"}, "event": {"start", "die", "destroy", "rename", "update"},
	})
	if err != nil {
		return nil, err
	}
	return c.open(ctx, "/events", url.Values{"filters": {string(filters)}})
}
