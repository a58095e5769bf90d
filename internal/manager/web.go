package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/authz"
)

// auditTimeout bounds writing an entry after the caller is gone.
const auditTimeout = 10 * time.Second

// web is the router with its OpenAPI document.
type web struct {
	m       *Manager
	api     huma.API
	rules   map[string]authz.Rule // by action, of those not registered yet
	limits  map[string]int64
	handler http.Handler
	errors  *huma.Response // the answer every route can give
}

func newWeb(m *Manager) *web {
	mux := http.NewServeMux()
	w := &web{m: m, rules: map[string]authz.Rule{}, limits: map[string]int64{}}
	for _, r := range authz.Rules() {
		w.rules[r.Action] = r
	}
	c := huma.DefaultConfig("Lazaret", "v1")
	c.OpenAPIPath, c.DocsPath, c.SchemasPath = "", "", ""
	c.CreateHooks = nil // no $schema links in answers
	c.Transformers = []huma.Transformer{w.transform}
	c.Info.Description = "Errors are problem documents (RFC 9457); lists are pages with a cursor; streams are server-sent events."
	c.Info.License = &huma.License{Name: "Apache-2.0", Identifier: "Apache-2.0"}
	c.Components.SecuritySchemes = map[string]*huma.SecurityScheme{
		"token":   {Type: "http", Scheme: "bearer", Description: "API token (lzt_…) or node token (lzn_…)"},
		"session": {Type: "apiKey", In: "cookie", Name: cookieName, Description: "Session of a browser"},
	}
	w.api = humago.New(mux, c)
	schema := w.api.OpenAPI().Components.Schemas.Schema(typeOf[api.Problem](), true, "Problem")
	w.errors = &huma.Response{Description: "Problem", Content: map[string]*huma.MediaType{"application/problem+json": {Schema: schema}}}
	m.routes(w)
	if len(w.rules) > 0 {
		panic(fmt.Sprintf("routes of the authorization table without a handler: %v", w.rules)) // found by every test
	}
	w.handler = &gate{m: m, mux: mux, cross: http.NewCrossOriginProtection(), limits: w.limits}
	return w
}

// option changes a route's operation.
type option func(*huma.Operation)

func status(code int) option { return func(o *huma.Operation) { o.DefaultStatus = code } }

func maxBody(n int64) option {
	return func(o *huma.Operation) { o.MaxBodyBytes, o.BodyReadTimeout = n, 2*time.Minute }
}

// lenient accepts fields this version does not know: nodes may be newer.
func lenient(o *huma.Operation) { o.SkipValidateBody = true }

// body describes a request body that the handler reads itself.
func body(media, text string) option {
	return func(o *huma.Operation) {
		o.RequestBody = &huma.RequestBody{Required: true, Description: text, Content: map[string]*huma.MediaType{
			media: {Schema: &huma.Schema{Type: "string", Format: "binary"}},
		}}
	}
}

// answers describes an answer that the handler writes itself.
func answers(media, text string) option {
	return func(o *huma.Operation) {
		code := "200"
		if o.DefaultStatus != 0 {
			code = fmt.Sprint(o.DefaultStatus)
		}
		o.Responses[code] = &huma.Response{Description: text, Content: map[string]*huma.MediaType{
			media: {Schema: &huma.Schema{Type: "string"}},
		}}
	}
}

// route registers the handler of an action. Method, path and title come from
// the authorization table, so a route that is not in it cannot exist.
func route[I, O any](w *web, action string, h func(context.Context, *I) (*O, error), opts ...option) {
	r, ok := w.rules[action]
	if !ok {
		panic("action " + action + " is not in the authorization table or registered twice") // found by every test
	}
	delete(w.rules, action)
	op := huma.Operation{
		OperationID: strings.ReplaceAll(action, ".", "-"), Method: r.Method,
		Path: strings.ReplaceAll(r.Path, "...}", "}"), Summary: r.Title, Tags: []string{tag(r.Path)},
		Description: "Audit action `" + action + "`.",
		Responses:   map[string]*huma.Response{"default": w.errors},
	}
	if !r.Public {
		op.Security = []map[string][]string{{"token": {}}, {"session": {}}}
	}
	for _, o := range opts {
		o(&op)
	}
	if op.MaxBodyBytes == 0 {
		op.MaxBodyBytes = defaultBody
	}
	w.limits[r.Method+" "+r.Path] = op.MaxBodyBytes
	huma.Register(wildcard{w.api, r.Path}, op, func(ctx context.Context, in *I) (*O, error) {
		out, err := h(ctx, in)
		if err != nil {
			return nil, w.fail(ctx, err)
		}
		return out, nil
	})
}

// wildcard registers the router's pattern where OpenAPI has a plain parameter.
type wildcard struct {
	huma.API
	path string
}

// Adapter replaces the path.
func (w wildcard) Adapter() huma.Adapter { return wildcardAdapter{w.API.Adapter(), w.path} }

type wildcardAdapter struct {
	huma.Adapter
	path string
}

// Handle registers the operation under the router's pattern.
func (a wildcardAdapter) Handle(op *huma.Operation, h func(huma.Context)) {
	o := *op
	o.Path = a.path
	a.Adapter.Handle(&o, h)
}

func tag(path string) string {
	rest, ok := strings.CutPrefix(path, api.Prefix+"/")
	if !ok {
		return "service"
	}
	first, _, _ := strings.Cut(rest, "/")
	return first
}

// fail maps a handler's error and keeps it for the audit log.
func (w *web) fail(ctx context.Context, err error) error {
	p := *w.m.asProblem(ctx, err)
	c := callOf(ctx)
	p.RequestID, c.problem = c.id, &p
	if h := (interface{ GetHeaders() http.Header })(nil); errors.As(err, &h) {
		return huma.ErrorWithHeaders(&p, h.GetHeaders())
	}
	return &p
}

// transform turns the framework's own errors (validation, body size) into
// problem documents.
func (w *web) transform(ctx huma.Context, _ string, v any) (any, error) {
	e, ok := v.(*huma.ErrorModel)
	if !ok {
		return v, nil
	}
	texts := []string{}
	for _, d := range e.Errors {
		texts = append(texts, strings.TrimSpace(d.Message+" "+d.Location))
	}
	if len(texts) == 0 {
		texts = append(texts, e.Detail)
	}
	c := callOf(ctx.Context())
	p := problem(e.Status, kindOf(e.Status), "%s", strings.Join(texts, "; "))
	p.RequestID, c.problem = c.id, p
	return p, nil
}

// document is the OpenAPI document.
func (w *web) document() ([]byte, error) {
	b, err := w.api.OpenAPI().MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("encoding OpenAPI document: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "  "); err != nil {
		return nil, fmt.Errorf("encoding OpenAPI document: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
