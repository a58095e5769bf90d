package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// serve answers with f on a TCP address and returns a client of it.
func serve(t *testing.T, f http.HandlerFunc) *Client {
	t.Helper()
	s := httptest.NewServer(f)
	t.Cleanup(s.Close)
	c, err := NewClient(ClientConfig{URL: s.URL + "/base/", Token: "secret", UserAgent: "test"})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func TestDo(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		w.Header().Set("ETag", `"7"`)
		json.NewEncoder(w).Encode(map[string]string{
			"uri": r.RequestURI, "method": r.Method, "body": string(b), "auth": r.Header.Get("Authorization"),
			"type": r.Header.Get("Content-Type"), "match": r.Header.Get("If-Match"), "key": r.Header.Get("Idempotency-Key"),
		})
	})
	var got map[string]string
	var tag string
	require.NoError(t, c.Post(t.Context(), "/api/v1/x%2Fy", ScanRef{ID: "1"}, &got, Query("a", "b c"), Query("none", ""), IfMatch(`"6"`), IdempotencyKey("k"), ETag(&tag)))
	require.Equal(t, map[string]string{
		"uri": "/base/api/v1/x%2Fy?a=b+c", "method": "POST", "body": `{"id":"1"}`, "auth": "Bearer secret",
		"type": "application/json", "match": `"6"`, "key": "k",
	}, got)
	require.Equal(t, `"7"`, tag)
	require.NoError(t, c.Put(t.Context(), "/x", strings.NewReader("raw"), &got, Header("Content-Type", "text/plain")))
	require.Equal(t, "raw", got["body"])
	require.Equal(t, "text/plain", got["type"])
	require.NoError(t, c.Delete(t.Context(), "/x"))

	resp, err := c.HTTP().Get("http://anything/metadata/1.root.json?x=1")
	require.NoError(t, err)
	defer resp.Body.Close()
	require.NoError(t, json.NewDecoder(resp.Body).Decode(&got))
	require.Equal(t, "/base/metadata/1.root.json?x=1", got["uri"])
	require.Equal(t, "Bearer secret", got["auth"])
}

func TestErrors(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/base/problem":
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(409)
			io.WriteString(w, `{"type":"urn:lazaret:refused","title":"T","status":200,"detail":"because"}`)
		case "/base/page":
			http.Error(w, "<html>proxy</html>", 502)
		case "/base/same":
			w.WriteHeader(304)
		case "/base/redirect":
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusFound)
		case "/base/garbage":
			io.WriteString(w, "{")
		case "/base/empty":
			w.WriteHeader(204)
		}
	})
	get := func(path string) error { var v map[string]any; return c.Get(t.Context(), path, &v) }
	var p *Problem
	require.ErrorAs(t, get("/problem"), &p)
	require.Equal(t, Problem{Type: ProblemRefused, Title: "T", Status: 409, Detail: "because"}, *p)
	require.Equal(t, "because", p.Error())
	require.ErrorAs(t, get("/page"), &p)
	require.Equal(t, "Bad Gateway", p.Error())
	require.ErrorIs(t, get("/same"), ErrNotModified)
	require.ErrorAs(t, get("/redirect"), &p, "redirects are not followed: the token would leak")
	require.ErrorContains(t, get("/garbage"), "reading answer of GET /garbage")
	require.NoError(t, get("/empty"))
	require.Error(t, c.Post(t.Context(), "/x", make(chan int), nil))

	none, err := NewClient(ClientConfig{Socket: filepath.Join(t.TempDir(), "none.sock")})
	require.NoError(t, err)
	require.ErrorIs(t, none.Get(t.Context(), "/x", nil), ErrUnreachable)
	ctx, cancel := context.WithCancelCause(t.Context())
	own := errors.New("own")
	cancel(own)
	require.ErrorIs(t, none.Get(ctx, "/x", nil), own)
	for _, u := range []string{"", "manager:7480", "ftp://x", "://"} {
		_, err := NewClient(ClientConfig{URL: u})
		require.Error(t, err, u)
	}
}

func TestSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "m.sock")
	l, err := net.Listen("unix", path)
	require.NoError(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, `"`+r.URL.Path+`"`) })}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	c, err := NewClient(ClientConfig{Socket: path})
	require.NoError(t, err)
	var got string
	require.NoError(t, c.Get(t.Context(), "/api/v1/me", &got))
	require.Equal(t, "/api/v1/me", got)
}

func TestList(t *testing.T) {
	t.Parallel()
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch token := r.URL.Query().Get("page_token"); {
		case r.URL.Query().Get("state") != "open":
			w.WriteHeader(400)
		case token == "":
			json.NewEncoder(w).Encode(Page[int]{Items: []int{1, 2}, NextPageToken: "a"})
		case token == "a":
			json.NewEncoder(w).Encode(Page[int]{Items: []int{}, NextPageToken: "b"})
		default:
			json.NewEncoder(w).Encode(Page[int]{Items: []int{3}})
		}
	})
	var got []int
	for x, err := range List[int](t.Context(), c, "/x", Query("state", "open")) {
		require.NoError(t, err)
		got = append(got, x)
	}
	require.Equal(t, []int{1, 2, 3}, got)
	for _, err := range List[int](t.Context(), c, "/x") {
		require.Error(t, err)
	}
	for range List[int](t.Context(), c, "/x", Query("state", "open")) {
		break // the consumer may stop
	}
}

func TestFollow(t *testing.T) {
	t.Parallel()
	var calls atomic.Int32
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1:
			io.WriteString(w, "id: 1\ndata: a\n\nid: 2\ndata: lost") // broken off inside an event
		case 2:
			w.WriteHeader(503)
		case 3:
			fmt.Fprintf(w, "id: 2\ndata: after %s\n\n", r.Header.Get("Last-Event-ID"))
		default:
			w.WriteHeader(403)
			io.WriteString(w, `{"type":"urn:lazaret:denied"}`)
		}
	})
	var got []string
	err := c.Follow(t.Context(), "/events", "", func(ev Event) error {
		got = append(got, string(ev.Data))
		return nil
	})
	var p *Problem
	require.ErrorAs(t, err, &p, "a refused request is not repeated")
	require.Equal(t, []string{"a", "after 1"}, got)

	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	none, err := NewClient(ClientConfig{Socket: "/nonexistent"})
	require.NoError(t, err)
	require.ErrorIs(t, none.Follow(ctx, "/x", "", nil), context.DeadlineExceeded)
}

func TestEventReader(t *testing.T) {
	t.Parallel()
	r := NewEventReader(strings.NewReader("retry: 1500\n\n: comment\nid: 1\nevent: finding\ndata: {\ndata:}\nunknown: x\n\r\n" +
		"id: dropped\n\ndata\r\n\r\nid: a\x00b\ndata: x\n\ndata: unfinished\n"))
	ev, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, Event{ID: "1", Name: "finding", Data: []byte("{\n}")}, ev)
	require.Equal(t, 1500*time.Millisecond, r.Retry())
	ev, err = r.Next()
	require.NoError(t, err)
	require.Equal(t, "message", ev.Name)
	require.Empty(t, ev.Data)
	ev, err = r.Next()
	require.NoError(t, err)
	require.Empty(t, ev.ID, "an id with a NUL is ignored")
	_, err = r.Next()
	require.ErrorIs(t, err, io.EOF)
	_, err = NewEventReader(io.MultiReader(strings.NewReader("data: "), endless{})).Next()
	require.ErrorContains(t, err, "longer than")
	_, err = NewEventReader(io.MultiReader(strings.NewReader("data: "), &io.LimitedReader{R: endless{}, N: 100})).Next()
	require.ErrorIs(t, err, io.ErrUnexpectedEOF)
}

type endless struct{}

func (endless) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
	}
	return len(b), nil
}

func FuzzEventReader(f *testing.F) {
	f.Add("id: 1\nevent: finding\ndata: {}\n\n")
	f.Add("retry: 99999999999999999999\n\ndata\r\n\r\n")
	f.Add(": comment\n\n\n")
	f.Fuzz(func(t *testing.T, s string) {
		r := NewEventReader(strings.NewReader(s))
		for n := 0; ; n++ {
			ev, err := r.Next()
			if err != nil {
				return
			}
			require.NotEmpty(t, ev.Name)
			require.LessOrEqual(t, len(ev.Data), len(s))
			require.LessOrEqual(t, n, len(s))
			require.GreaterOrEqual(t, r.Retry(), time.Duration(0))
		}
	})
}
