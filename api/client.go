package api

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Prefix is the path under which every route of this version lives.
const Prefix = "/api/v1"

// maxAnswer bounds a JSON answer read into memory.
const maxAnswer = 64 << 20

// maxProblem bounds a problem document.
const maxProblem = 64 << 10

// ErrUnreachable says nobody answered: the daemon is not running, the address
// is wrong or the connection broke.
var ErrUnreachable = errors.New("manager is not reachable")

// ErrNotModified answers a request with IfNoneMatch whose tag still holds.
var ErrNotModified = errors.New("not modified")

// ClientConfig says where the manager is. Socket wins over URL.
type ClientConfig struct {
	// Socket is the path of the manager's unix socket.
	Socket string
	// URL is the manager's address such as "https://manager:7480"; a path in it
	// is put before every request's path.
	URL string
	// Token is an API or node token, sent as bearer token; may be empty on the
	// socket, where root is known by its peer credentials.
	Token string
	// TLS for URL; nil means the system's roots.
	TLS *tls.Config
	// UserAgent is sent along; default "lazaret".
	UserAgent string
}

// Client speaks to a manager. It is safe for concurrent use. Timeouts come from
// the caller's context.
type Client struct {
	http  *http.Client
	base  *url.URL
	token string
	agent string
}

// NewClient returns a client; it does not connect. Close releases its idle
// connections.
func NewClient(c ClientConfig) (*Client, error) {
	t := &http.Transport{
		TLSClientConfig: c.TLS, ForceAttemptHTTP2: true, MaxIdleConns: 16,
		IdleConnTimeout: 90 * time.Second, TLSHandshakeTimeout: 10 * time.Second,
		Proxy: http.ProxyFromEnvironment,
	}
	base := &url.URL{Scheme: "http", Host: "lazaret"}
	if c.Socket != "" {
		t.Proxy = nil
		t.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{Timeout: 5 * time.Second}).DialContext(ctx, "unix", c.Socket)
		}
	} else {
		u, err := url.Parse(c.URL)
		if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
			return nil, fmt.Errorf("reading manager address %q: want http://HOST:PORT or https://HOST:PORT", c.URL)
		}
		u.Path = strings.TrimSuffix(u.Path, "/")
		u.RawQuery, u.Fragment = "", ""
		base = u
	}
	if c.UserAgent == "" {
		c.UserAgent = "lazaret"
	}
	return &Client{
		// A redirect would carry the token to another place: never follow.
		http: &http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
		base: base, token: c.Token, agent: c.UserAgent,
	}, nil
}

// Close closes idle connections.
func (c *Client) Close() error {
	c.http.CloseIdleConnections()
	return nil
}

// HTTP returns a round tripper that adds this client's address and token to
// requests, for code that wants a plain http.Client (the TUF fetcher): only
// the path and query of a request's URL are used.
func (c *Client) HTTP() *http.Client {
	return &http.Client{
		Transport: roundTripper(func(r *http.Request) (*http.Response, error) {
			r = r.Clone(r.Context())
			r.URL.Scheme, r.URL.Host = c.base.Scheme, c.base.Host
			r.URL.Path = c.base.Path + r.URL.Path
			c.decorate(r)
			return c.http.Transport.RoundTrip(r)
		}),
		CheckRedirect: c.http.CheckRedirect,
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

func (c *Client) decorate(r *http.Request) {
	r.Header.Set("User-Agent", c.agent)
	if c.token != "" {
		r.Header.Set("Authorization", "Bearer "+c.token)
	}
}

// Option changes one request.
type Option func(*exchange)

type exchange struct {
	header http.Header
	query  url.Values
	etag   *string
}

// Header sets a request header.
func Header(key, value string) Option {
	return func(e *exchange) { e.header.Set(key, value) }
}

// Query adds a query parameter; an empty value is left out.
func Query(key, value string) Option {
	return func(e *exchange) {
		if value != "" {
			e.query.Add(key, value)
		}
	}
}

// IfMatch makes a change conditional on the resource's tag; 412 answers when
// somebody else was faster.
func IfMatch(etag string) Option { return Header("If-Match", etag) }

// IfNoneMatch makes a read conditional: ErrNotModified answers while the tag
// holds. "*" on a change means "only if it does not exist".
func IfNoneMatch(etag string) Option { return Header("If-None-Match", etag) }

// IdempotencyKey makes a repeated POST harmless: the manager answers it as it
// answered the first one.
func IdempotencyKey(key string) Option { return Header("Idempotency-Key", key) }

// ETag stores the answer's tag.
func ETag(to *string) Option { return func(e *exchange) { e.etag = to } }

// Do sends in as JSON (nil: no body; an io.Reader or []byte is sent as it is)
// and decodes the answer into out unless out is nil. Path starts with
// "/api/v1". An error is *Problem for an answer of the manager,
// ErrUnreachable or ErrNotModified.
func (c *Client) Do(ctx context.Context, method, path string, in, out any, opts ...Option) error {
	var body io.Reader
	switch x := in.(type) {
	case nil:
	case io.Reader:
		body = x
	case []byte:
		body = bytes.NewReader(x)
	default:
		b, err := json.Marshal(in)
		if err != nil {
			return fmt.Errorf("encoding request: %w", err)
		}
		body = bytes.NewReader(b)
		opts = append([]Option{Header("Content-Type", "application/json")}, opts...)
	}
	resp, err := c.Open(ctx, method, path, body, opts...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if out == nil || resp.StatusCode == http.StatusNoContent {
		_, err = io.Copy(io.Discard, io.LimitReader(resp.Body, maxProblem))
		return unreachable(ctx, err)
	}
	d := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	if err := d.Decode(out); err != nil {
		return fmt.Errorf("reading answer of %s %s: %w", method, path, unreachable(ctx, err))
	}
	return nil
}

// Get is Do with GET.
func (c *Client) Get(ctx context.Context, path string, out any, opts ...Option) error {
	return c.Do(ctx, http.MethodGet, path, nil, out, opts...)
}

// Post is Do with POST.
func (c *Client) Post(ctx context.Context, path string, in, out any, opts ...Option) error {
	return c.Do(ctx, http.MethodPost, path, in, out, opts...)
}

// Put is Do with PUT.
func (c *Client) Put(ctx context.Context, path string, in, out any, opts ...Option) error {
	return c.Do(ctx, http.MethodPut, path, in, out, opts...)
}

// Delete is Do with DELETE.
func (c *Client) Delete(ctx context.Context, path string, opts ...Option) error {
	return c.Do(ctx, http.MethodDelete, path, nil, nil, opts...)
}

// Open sends a request and returns the answer if its status is 2xx; the caller
// closes the body. Anything else becomes an error as in Do.
func (c *Client) Open(ctx context.Context, method, path string, body io.Reader, opts ...Option) (*http.Response, error) {
	e := exchange{header: http.Header{"Accept": {"application/json"}}, query: url.Values{}}
	for _, o := range opts {
		o(&e)
	}
	u := *c.base
	target := u.Scheme + "://" + u.Host + u.EscapedPath() + path
	if len(e.query) > 0 {
		target += "?" + e.query.Encode()
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, fmt.Errorf("building request: %w", err)
	}
	req.Header = e.header
	c.decorate(req)
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, unreachable(ctx, err)
	}
	if e.etag != nil {
		*e.etag = resp.Header.Get("ETag")
	}
	if resp.StatusCode >= 200 && resp.StatusCode < 300 {
		return resp, nil
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusNotModified {
		return nil, ErrNotModified
	}
	return nil, problemOf(resp)
}

// problemOf reads a problem document; a foreign answer (a proxy's page) becomes
// one too.
func problemOf(resp *http.Response) *Problem {
	p := &Problem{}
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxProblem))
	if err != nil || json.Unmarshal(b, p) != nil || p.Type == "" {
		p = &Problem{Type: "about:blank"}
	}
	p.Status = resp.StatusCode
	if p.Title == "" {
		p.Title = http.StatusText(resp.StatusCode)
	}
	return p
}

// unreachable tells a broken connection from the caller's own cancellation.
func unreachable(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if u := (*url.Error)(nil); errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("%w: %w", ErrUnreachable, err)
}

// List yields every item of a paged list, fetching pages as needed; it ends
// after the first error.
func List[T any](ctx context.Context, c *Client, path string, opts ...Option) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		token := ""
		for {
			var page Page[T]
			if err := c.Get(ctx, path, &page, append(opts[:len(opts):len(opts)], Query("page_token", token))...); err != nil {
				yield(*new(T), err)
				return
			}
			for _, item := range page.Items {
				if !yield(item, nil) {
					return
				}
			}
			if page.NextPageToken == "" || page.NextPageToken == token {
				return
			}
			token = page.NextPageToken
		}
	}
}
