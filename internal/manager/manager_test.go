package manager

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/manager/authz"
	"github.com/lazaret/lazaret/internal/manager/limit"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/signature"
	"github.com/lazaret/lazaret/internal/threat"
)

var update = flag.Bool("update", false, "rewrite golden files")

var _ Repository = (*signature.Repository)(nil)

// fakeRepository is a signature repository in memory.
type fakeRepository struct {
	mu      sync.Mutex
	bundles []api.Bundle
	broken  error
}

func (f *fakeRepository) List() ([]api.Bundle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]api.Bundle(nil), f.bundles...), f.broken
}

func (f *fakeRepository) add(b api.Bundle) api.Bundle {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.Epoch, b.Active = threat.Epoch(len(f.bundles)+1), true
	for i := range f.bundles {
		f.bundles[i].Active = false
	}
	f.bundles = append([]api.Bundle{b}, f.bundles...)
	return b
}

func (f *fakeRepository) Rollback(_ context.Context, e threat.Epoch, by, reason string) (api.Bundle, error) {
	if int(e) > len(f.bundles) {
		return api.Bundle{}, signature.ErrNotFound
	}
	return f.add(api.Bundle{By: by, Comment: reason, RollbackOf: e}), nil
}

func (f *fakeRepository) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "public")
		io.WriteString(w, "tuf "+r.URL.Path)
	})
}

// fakeImporter counts a rule per source file and publishes unless told not to.
type fakeImporter struct{ repo *fakeRepository }

func (f fakeImporter) Import(_ context.Context, i Import) (api.ImportReport, error) {
	rep := api.ImportReport{SelfTest: "passed"}
	err := filepath.WalkDir(i.Dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			rep.Rules++
			if strings.HasSuffix(path, ".bad") {
				rep.Errors = append(rep.Errors, api.ImportError{File: filepath.Base(path), Line: 3, Text: "syntax error"})
			}
		}
		return err
	})
	if err == nil && !i.DryRun {
		b := f.repo.add(api.Bundle{By: i.By, Comment: i.Comment, Rules: rep.Rules})
		rep.Bundle = &b
	}
	return rep, err
}

// testBench is a manager with an HTTP server and users of every role.
type testBench struct {
	*Manager
	t       *testing.T
	repo    *fakeRepository
	url     string
	secrets map[string]string // token by user or node
	cut     func()            // breaks all connections
}

func newManager(t *testing.T, dir string) *Manager {
	t.Helper()
	repo := &fakeRepository{}
	m, err := New(Config{
		Dir: dir, Repository: repo, Importer: fakeImporter{repo}, Logger: slog.New(slog.DiscardHandler),
		Conditions: &condition.Set{}, Version: "1.2.3", NodeWait: 2 * time.Second,
	})
	require.NoError(t, err)
	return m
}

func bench(t *testing.T) *testBench {
	t.Helper()
	m := newManager(t, t.TempDir())
	b := &testBench{Manager: m, t: t, repo: m.Repository.(*fakeRepository), secrets: map[string]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.appender.Run(ctx) }()
	srv := httptest.NewUnstartedServer(m.Handler())
	srv.Config.ConnContext = connContext
	srv.Start()
	t.Cleanup(func() {
		m.stop.Do(func() { close(m.stopping) })
		srv.CloseClientConnections()
		srv.Close()
		cancel()
		require.NoError(t, <-done)
		require.NoError(t, m.Close())
	})
	b.url, b.cut = srv.URL, srv.CloseClientConnections
	for name, roles := range map[string][]string{
		"paula": {"platform"}, "sven": {"security"}, "anna": {"auditor"}, "olga": {"owner"},
	} {
		b.user(name, roles)
	}
	secret, err := m.NodeToken(t.Context(), "n1")
	require.NoError(t, err)
	b.secrets["n1"] = secret
	return b
}

// user adds a user without the cost of a password hash, with a token.
func (b *testBench) user(name string, roles []string) {
	var tenants []string
	if roles[0] == "owner" {
		tenants = []string{"blue"}
	}
	b.secrets[name] = newSecret(userPrefix)
	require.NoError(b.t, b.store.Update(b.t.Context(), func(tx *store.Tx) error {
		if err := tx.AddUser(b.t.Context(), store.UserRecord{User: api.User{Name: name, Roles: roles, Tenants: tenants}}); err != nil {
			return err
		}
		return tx.AddToken(b.t.Context(), store.TokenRecord{
			Kind: store.TokenUser, Token: api.Token{ID: store.NewID(), Name: "t", User: name, Expires: tx.Now.Add(time.Hour)},
		}, hash(b.secrets[name]))
	}))
}

// newUnlimited is a limiter for tests that are denied very often.
func newUnlimited() *limit.Limiter { return limit.New(1<<20, time.Millisecond) }

// as returns a client with somebody's token; "" is a stranger.
func (b *testBench) as(name string) *api.Client {
	c, err := api.NewClient(api.ClientConfig{URL: b.url, Token: b.secrets[name]})
	require.NoError(b.t, err)
	b.t.Cleanup(func() { c.Close() })
	return c
}

func newRequest(t *testing.T, ctx context.Context, url string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
	require.NoError(t, err)
	return r
}

// wantProblem asserts status and type of an error.
func wantProblem(t *testing.T, err error, status int, kind string) *api.Problem {
	t.Helper()
	var p *api.Problem
	require.True(t, errors.As(err, &p), "want a problem, got %v", err)
	require.Equal(t, status, p.Status, p.Detail)
	require.Equal(t, kind, p.Type, p.Detail)
	require.NotEmpty(t, p.Title)
	require.NotEmpty(t, p.RequestID)
	return p
}

func testFinding(id, tenant string) threat.Finding {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return threat.Finding{
		ID: id, Time: at, LastSeen: at, Node: "n1", Count: 1, State: threat.Open, Trigger: "open",
		Workload: threat.Workload{ID: "container/" + id, Kind: threat.KindContainer, Name: "web-" + id, Tenant: tenant, Image: "shop:1"},
		Object:   threat.Hash{1, 2, 3}, Location: threat.Location{Path: "/tmp/Dropper-" + id}, Verdict: threat.Malicious, Severity: threat.High,
		Detections: []threat.Detection{{Signature: "Lazaret.Test", Engine: "yara", Severity: threat.High}},
		Decisions:  []threat.Decision{{Action: threat.Deny, By: "policy:default", At: at, Result: "done"}},
	}
}

// upload sends findings as node n1.
func (b *testBench) upload(batch string, findings ...threat.Finding) {
	b.t.Helper()
	require.NoError(b.t, b.as("n1").Post(b.t.Context(), "/api/v1/nodes/n1/batches", api.Batch{ID: batch, Findings: findings}, nil))
}

func TestOpenAPIGolden(t *testing.T) {
	t.Parallel()
	m := newManager(t, t.TempDir())
	defer m.Close()
	got, err := m.OpenAPI()
	require.NoError(t, err)
	golden := filepath.Join("..", "..", "api", "openapi.json")
	if *update {
		require.NoError(t, os.WriteFile(golden, got, 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(got), "the API changed: run go test ./internal/manager -update and review api/openapi.json")

	// Every row of the table is in the document, and nothing else is.
	var doc struct {
		OpenAPI string                               `json:"openapi"`
		Paths   map[string]map[string]map[string]any `json:"paths"`
	}
	require.NoError(t, json.Unmarshal(got, &doc))
	require.Equal(t, "3.1.0", doc.OpenAPI)
	n := 0
	for _, r := range authz.Rules() {
		op := doc.Paths[strings.ReplaceAll(r.Path, "...}", "}")][strings.ToLower(r.Method)]
		require.NotNil(t, op, "%s %s", r.Method, r.Path)
		require.Equal(t, r.Title, op["summary"])
	}
	for _, methods := range doc.Paths {
		n += len(methods)
	}
	require.Len(t, authz.Rules(), n)
}

func TestFindingsFlow(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	b.upload("01A", testFinding("F1", "blue"), testFinding("F2", "red"))
	var f threat.Finding
	var tag string
	require.NoError(t, b.as("sven").Get(ctx, "/api/v1/findings/F1", &f, api.ETag(&tag)))
	require.Equal(t, "web-F1", f.Workload.Name)
	require.NotEmpty(t, tag)

	var page api.Page[threat.Finding]
	require.NoError(t, b.as("olga").Get(ctx, "/api/v1/findings", &page))
	require.Len(t, page.Items, 1, "an owner sees the own tenant only")
	require.Equal(t, "F1", page.Items[0].ID)
	wantProblem(t, b.as("olga").Get(ctx, "/api/v1/findings/F2", nil), 404, api.ProblemNotFound)

	decide := func(who string, r api.DecisionRequest, o ...api.Option) error {
		return b.as(who).Post(ctx, "/api/v1/findings/F1/decisions", r, &f, o...)
	}
	quarantine := api.DecisionRequest{Action: threat.Quarantine, Reason: "it is malware"}
	wantProblem(t, decide("paula", quarantine), 403, api.ProblemDenied)
	wantProblem(t, decide("anna", quarantine), 403, api.ProblemDenied)
	wantProblem(t, decide("sven", api.DecisionRequest{Action: "explode", Reason: "x"}), 422, api.ProblemInvalid)
	wantProblem(t, decide("sven", api.DecisionRequest{Action: threat.Quarantine}), 422, api.ProblemInvalid)
	wantProblem(t, decide("sven", quarantine, api.IfMatch(`"other"`)), 412, api.ProblemPrecondition)
	require.NoError(t, decide("sven", quarantine, api.IfMatch(tag), api.IdempotencyKey("k1")))
	require.Len(t, f.Decisions, 2)
	require.Equal(t, "pending", f.Decisions[1].Result)
	require.Equal(t, "user:sven", f.Decisions[1].By)
	require.NoError(t, decide("sven", quarantine, api.IfMatch(tag), api.IdempotencyKey("k1")), "a repetition is answered like the first")
	require.Len(t, f.Decisions, 2)
	wantProblem(t, decide("sven", api.DecisionRequest{Action: threat.Kill, Reason: "x"}, api.IdempotencyKey("k1")), 422, api.ProblemInvalid)

	cmds, err := b.store.Waiting(ctx, "n1", 0)
	require.NoError(t, err)
	require.Len(t, cmds, 1)
	require.Equal(t, api.VerbDecide, cmds[0].Verb)
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/batches", api.Batch{
		ID: "01B", Results: []api.CommandResult{{Command: cmds[0].ID, OK: true, Done: time.Now()}},
	}, nil))
	require.NoError(t, b.as("sven").Get(ctx, "/api/v1/findings/F1", &f))
	require.Equal(t, "done", f.Decisions[1].Result)
	require.Equal(t, threat.Contained, f.State)
	var state api.CommandState
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/commands/"+cmds[0].ID, &state))
	require.Equal(t, "done", state.State)

	require.NoError(t, decide("sven", api.DecisionRequest{Action: "dismiss", Reason: "our own test"}))
	require.Equal(t, threat.Dismissed, f.State)
}
