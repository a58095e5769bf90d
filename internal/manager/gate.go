package manager

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"runtime/debug"
	"strings"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/authz"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// defaultBody bounds a request's body where a route does not say otherwise.
const defaultBody = 1 << 20

// gate is what every request passes: request id, headers, cross-origin check,
// identity, the authorization table, the body limit and the audit of denied
// and failed calls. Behind it only allowed requests exist.
type gate struct {
	m      *Manager
	mux    *http.ServeMux
	cross  *http.CrossOriginProtection
	limits map[string]int64 // body limits by pattern
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := &call{id: store.NewID(), target: r.URL.Path}
	r = r.WithContext(context.WithValue(r.Context(), callKey{}, c))
	sw := &statusWriter{ResponseWriter: w}
	h := sw.Header()
	h.Set("X-Request-Id", c.id)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
	defer g.finish(r.Context(), sw, c)
	if err := g.admit(r, c); err != nil {
		g.m.writeProblem(r.Context(), sw, err)
		return
	}
	limit := g.limits[c.rule.Method+" "+c.rule.Path]
	if limit == 0 {
		limit = defaultBody
	}
	r.Body = http.MaxBytesReader(sw, r.Body, limit)
	g.mux.ServeHTTP(sw, r)
}

// admit fills c and says why the request may not pass.
func (g *gate) admit(r *http.Request, c *call) error {
	if err := g.cross.Check(r); err != nil {
		return problem(http.StatusForbidden, api.ProblemDenied, "requests from other web sites are not accepted")
	}
	handler, pattern := g.mux.Handler(r)
	rule, known := g.m.table.Find(pattern)
	c.rule = rule
	var err error
	c.principal, err = g.m.identify(r)
	if err != nil && !(known && rule.Public) {
		return g.m.denied(r.Context(), c, err)
	}
	if !known {
		if !c.principal.Known() {
			return g.m.denied(r.Context(), c, wrongCredentials("log in or send a token"))
		}
		return unrouted(handler, r)
	}
	c.node = pathNode(rule.Path, r.URL.EscapedPath())
	d := rule.Decide(c.principal, c.node)
	if !d.Allowed {
		err := problem(http.StatusForbidden, api.ProblemDenied, "%s", d.Reason)
		if !c.principal.Known() {
			err = problem(http.StatusUnauthorized, api.ProblemUnknown, "log in or send a token")
		}
		return g.m.denied(r.Context(), c, err)
	}
	c.scope = d.Scope
	return nil
}

// unrouted asks the router whether path or method is wrong.
func unrouted(h http.Handler, r *http.Request) error {
	rec := &statusWriter{ResponseWriter: discard{http.Header{}}}
	h.ServeHTTP(rec, r)
	if rec.status == http.StatusMethodNotAllowed {
		return problem(rec.status, api.ProblemMethod, "%s is not possible here: %s", r.Method, rec.Header().Get("Allow"))
	}
	return problem(http.StatusNotFound, api.ProblemNotFound, "there is no %s", r.URL.Path)
}

type discard struct{ h http.Header }

func (d discard) Header() http.Header         { return d.h }
func (d discard) Write(b []byte) (int, error) { return len(b), nil }
func (d discard) WriteHeader(int)             {}

// pathNode returns the value of {node} in a path that matched the pattern.
func pathNode(pattern, path string) string {
	names, values := strings.Split(pattern, "/"), strings.Split(path, "/")
	for i, n := range names {
		if n == "{node}" && i < len(values) {
			v, err := url.PathUnescape(values[i])
			if err != nil {
				return "\x00" // matches no node
			}
			return v
		}
	}
	return ""
}

// denied writes a denied call to the audit log and returns its problem. A
// stranger who hammers gets 429 and no more entries: the log must not be a way
// to fill the disk.
func (m *Manager) denied(ctx context.Context, c *call, cause error) error {
	p := m.asProblem(ctx, cause)
	if ok, wait := m.denials.Allow(c.principal.From + " " + c.principal.Name); !ok {
		m.metrics.suppressed.Inc()
		return tooMany(wait, "too many denied requests")
	}
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		e := c.entry(c.target, p.Detail, nil)
		if e.Action == "" {
			e.Action = "unknown route"
		}
		e.Decision = "denied"
		return tx.Audit(ctx, e)
	})
	if err != nil {
		return err
	}
	c.audited = true
	return p
}

// finish turns a panic into an answer, counts, and audits calls of changing
// routes that wrote no entry themselves because they failed.
func (g *gate) finish(ctx context.Context, w *statusWriter, c *call) {
	if x := recover(); x != nil {
		if err, ok := x.(error); ok && errors.Is(err, http.ErrAbortHandler) {
			panic(x)
		}
		g.m.Logger.ErrorContext(ctx, "request panicked", slog.String("request_id", c.id),
			slog.String("panic", fmt.Sprint(x)), slog.String("stack", string(debug.Stack())))
		if w.status == 0 {
			g.m.writeProblem(ctx, w, problem(http.StatusInternalServerError, api.ProblemInternal,
				"the manager could not do this; its log says why under request %s", c.id))
		}
	}
	g.m.metrics.request(c.rule.Action, w.status)
	if c.rule.Audit != authz.Changes || c.audited || w.status == http.StatusTooManyRequests {
		return
	}
	// Public routes fail for strangers too, who must not fill the disk.
	if !c.principal.Known() {
		if ok, _ := g.m.denials.Allow(c.principal.From + " "); !ok {
			g.m.metrics.suppressed.Inc()
			return
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	err := g.m.store.Update(ctx, func(tx *store.Tx) error {
		e := c.entry(c.target, "", nil)
		if w.status >= 400 || w.status == 0 {
			e.Decision = "failed"
		}
		if c.problem != nil {
			e.Reason = c.problem.Detail
		}
		return tx.Audit(ctx, e)
	})
	if err != nil {
		g.m.Logger.ErrorContext(ctx, "failed call was not audited", slog.String("request_id", c.id), slog.Any("error", err))
	}
}

// writeProblem answers outside of the framework.
func (m *Manager) writeProblem(ctx context.Context, w http.ResponseWriter, err error) {
	p := *m.asProblem(ctx, err)
	c := callOf(ctx)
	p.RequestID, c.problem = c.id, &p
	if h := (interface{ GetHeaders() http.Header })(nil); errors.As(err, &h) {
		for k, v := range h.GetHeaders() {
			w.Header()[k] = v
		}
	}
	if p.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="lazaret"`)
	}
	w.Header().Set("Content-Type", p.ContentType(""))
	w.WriteHeader(p.Status)
	if err := json.NewEncoder(w).Encode(p); err != nil {
		return // the caller is gone
	}
}

// statusWriter remembers the status; Unwrap keeps flushing and deadlines.
type statusWriter struct {
	http.ResponseWriter
	status int
}

func (w *statusWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *statusWriter) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.status = http.StatusOK
	}
	return w.ResponseWriter.Write(b)
}

// Unwrap serves http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
