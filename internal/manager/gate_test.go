package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/audit"
	"github.com/lazaret/lazaret/internal/manager/authz"
	"github.com/lazaret/lazaret/internal/sqlite"
)

// call sends one raw request.
func (b *testBench) call(method, path, token string, body io.Reader, header ...string) *http.Response {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 5*time.Second)
	b.t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, method, b.url+path, body)
	require.NoError(b.t, err)
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	require.NoError(b.t, err)
	b.t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// concrete fills a pattern's parameters.
func concrete(path string) string {
	return strings.NewReplacer("{id}", "X", "{name}", "x", "{node}", "n1", "{index}", "0", "{path...}", "metadata/1.root.json",
		"{sha256}", strings.Repeat("a", 64)).Replace(path)
}

// TestEveryRouteAsEveryRole calls each row of the table as everybody and wants
// exactly the denials of the table.
func TestEveryRouteAsEveryRole(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.denials = newUnlimited() // this test is denied very often
	callers := map[string]authz.Role{"paula": authz.Platform, "sven": authz.Security, "anna": authz.Auditor, "olga": authz.Owner, "n1": authz.Node, "": ""}
	for _, rule := range authz.Rules() {
		for who, role := range callers {
			_, granted := rule.Grants[role]
			want := granted || rule.Public || rule.PublicLocal
			if rule.Action == "logout" && want {
				continue // answered by another test, needs a cookie
			}
			path := concrete(rule.Path)
			if strings.HasPrefix(rule.Action, "nodes.") {
				path = strings.Replace(path, "n1", "n9", 1) // n1 is still needed
			}
			resp := b.call(rule.Method, path, b.secrets[who], strings.NewReader("{}"), "Content-Type", "application/json")
			denied := resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusUnauthorized
			if rule.Public && denied { // set-up and login refuse by themselves
				var p api.Problem
				require.NoError(t, json.NewDecoder(resp.Body).Decode(&p))
				require.NotContains(t, p.Detail, "no role", rule.Path)
				continue
			}
			require.Equal(t, !want, denied, "%s %s as %q: %d", rule.Method, rule.Path, who, resp.StatusCode)
			if denied && who == "" {
				require.Equal(t, http.StatusUnauthorized, resp.StatusCode)
				require.NotEmpty(t, resp.Header.Get("WWW-Authenticate"))
			}
			require.NotEqual(t, http.StatusInternalServerError, resp.StatusCode, "%s %s as %q", rule.Method, rule.Path, who)
			require.Less(t, resp.StatusCode, 600)
			resp.Body.Close()
		}
	}
}

// TestEveryChangeIsAudited wants an entry for every call of a changing route,
// however it ends, and for every denied call.
func TestEveryChangeIsAudited(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.denials = newUnlimited()
	who := map[authz.Role]string{authz.Platform: "paula", authz.Security: "sven", authz.Node: "n1"}
	for _, rule := range authz.Rules() {
		if rule.Audit != authz.Changes {
			continue
		}
		token := ""
		for role, name := range who {
			if _, ok := rule.Grants[role]; ok {
				token = b.secrets[name]
			}
		}
		require.NoError(t, b.appender.Flush(t.Context()))
		before := b.audit.Size()
		resp := b.call(rule.Method, concrete(rule.Path), token, strings.NewReader("{}"), "Content-Type", "application/json")
		resp.Body.Close()
		require.Eventually(t, func() bool {
			return b.appender.Flush(t.Context()) == nil && b.audit.Size() == before+1
		}, 2*time.Second, 5*time.Millisecond, "%s %s: %d", rule.Method, rule.Path, resp.StatusCode)
		line, err := b.audit.Entry(before)
		require.NoError(t, err)
		var e api.AuditEntry
		require.NoError(t, json.Unmarshal(line, &e))
		require.Equal(t, rule.Action, e.Action)
		want := "failed"
		if token == "" && !rule.Public {
			want = "denied"
		}
		if resp.StatusCode < 300 {
			want = "allowed"
		}
		require.Equal(t, want, e.Decision, string(line))
		require.True(t, want == "allowed" || e.Reason != "", string(line))
	}
	rep, err := audit.Verify(filepath.Join(b.Dir, "audit"), audit.Options{})
	require.NoError(t, err)
	require.Empty(t, rep.Problems)
}

func TestGateProblems(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.denials = newUnlimited()
	for name, c := range map[string]struct {
		method, path, token string
		body                string
		header              []string
		status              int
		kind                string
	}{
		"unknown route, stranger":  {"GET", "/api/v1/nothing", "", "", nil, 401, api.ProblemUnknown},
		"unknown route":            {"GET", "/api/v1/nothing", "anna", "", nil, 404, api.ProblemNotFound},
		"wrong method":             {"PATCH", "/api/v1/findings", "anna", "", nil, 405, api.ProblemMethod},
		"wrong token":              {"GET", "/api/v1/findings", "!lzt_nonsense", "", nil, 401, api.ProblemUnknown},
		"token far too long":       {"GET", "/api/v1/findings", "!" + strings.Repeat("x", 5000), "", nil, 401, api.ProblemUnknown},
		"other scheme":             {"GET", "/api/v1/findings", "", "", []string{"Authorization", "Basic YTpi"}, 401, api.ProblemUnknown},
		"wrong session":            {"GET", "/api/v1/findings", "", "", []string{"Cookie", cookieName + "=x"}, 401, api.ProblemUnknown},
		"another web site":         {"POST", "/api/v1/scans", "paula", "{}", []string{"Sec-Fetch-Site", "cross-site"}, 403, api.ProblemDenied},
		"another origin":           {"POST", "/api/v1/scans", "paula", "{}", []string{"Origin", "https://evil.example"}, 403, api.ProblemDenied},
		"not JSON":                 {"POST", "/api/v1/scans", "paula", "{", []string{"Content-Type", "application/json"}, 400, api.ProblemInvalid},
		"unknown field":            {"POST", "/api/v1/scans", "paula", `{"paths":["/a"],"surprise":1}`, []string{"Content-Type", "application/json"}, 422, api.ProblemInvalid},
		"wrong type":               {"POST", "/api/v1/scans", "paula", `{"paths":"/a"}`, []string{"Content-Type", "application/json"}, 422, api.ProblemInvalid},
		"body too large":           {"POST", "/api/v1/scans", "paula", `{"image":"/` + strings.Repeat("x", defaultBody) + `"}`, []string{"Content-Type", "application/json"}, 413, api.ProblemTooLarge},
		"other media type":         {"POST", "/api/v1/scans", "paula", `<a/>`, []string{"Content-Type", "application/xml"}, 415, api.ProblemInvalid},
		"limit too large":          {"GET", "/api/v1/findings?limit=100000", "anna", "", nil, 422, api.ProblemInvalid},
		"severity unknown":         {"GET", "/api/v1/findings?severity=awful", "anna", "", nil, 422, api.ProblemInvalid},
		"another node's route":     {"GET", "/api/v1/nodes/n2/config", "n1", "", nil, 403, api.ProblemDenied},
		"another node, escaped":    {"GET", "/api/v1/nodes/n%32/config", "n1", "", nil, 403, api.ProblemDenied},
		"node as a person":         {"GET", "/api/v1/findings", "n1", "", nil, 403, api.ProblemDenied},
		"session secret as token":  {"GET", "/api/v1/me", "!session", "", nil, 401, api.ProblemUnknown},
		"token as session cookie":  {"GET", "/api/v1/me", "", "", []string{"Cookie", cookieName + "=TOKEN"}, 401, api.ProblemUnknown},
		"audit page out of range":  {"GET", "/api/v1/audit/entries?page_token=999999", "anna", "", nil, 422, api.ProblemInvalid},
		"audit proof out of range": {"GET", "/api/v1/audit/entries/999999/proof", "anna", "", nil, 404, api.ProblemNotFound},
		"last event id":            {"GET", "/api/v1/events", "anna", "", []string{"Last-Event-ID", "x"}, 422, api.ProblemInvalid},
	} {
		t.Run(name, func(t *testing.T) {
			token := b.secrets[c.token]
			if rest, ok := strings.CutPrefix(c.token, "!"); ok {
				token = rest
			}
			for i := range c.header {
				c.header[i] = strings.ReplaceAll(c.header[i], "TOKEN", b.secrets["anna"])
			}
			resp := b.call(c.method, c.path, token, strings.NewReader(c.body), c.header...)
			text, err := io.ReadAll(resp.Body)
			require.NoError(t, err)
			require.Equal(t, c.status, resp.StatusCode, string(text))
			require.Equal(t, "application/problem+json", resp.Header.Get("Content-Type"))
			var p api.Problem
			require.NoError(t, json.Unmarshal(text, &p))
			require.Equal(t, c.kind, p.Type)
			require.Equal(t, c.status, p.Status)
			require.NotEmpty(t, p.Detail)
			require.Equal(t, resp.Header.Get("X-Request-Id"), p.RequestID)
			require.Equal(t, "nosniff", resp.Header.Get("X-Content-Type-Options"))
			require.Equal(t, "no-store", resp.Header.Get("Cache-Control"))
		})
	}
}

// TestStrangersCannotFillTheLog: denied calls of one source are audited up to
// a rate, then answered 429 without an entry.
func TestStrangersCannotFillTheLog(t *testing.T) {
	t.Parallel()
	b := bench(t)
	limited := 0
	for range 60 {
		resp := b.call("GET", "/api/v1/findings", "", nil)
		if resp.StatusCode == http.StatusTooManyRequests {
			require.NotEmpty(t, resp.Header.Get("Retry-After"))
			limited++
		}
		resp.Body.Close()
	}
	require.Greater(t, limited, 30)
	require.NoError(t, b.appender.Flush(t.Context()))
	require.Less(t, b.audit.Size(), int64(30))
	var me api.Me
	require.NoError(t, b.as("anna").Get(t.Context(), "/api/v1/me", &me), "people with a token go on")
}

func TestPanicIsAnAnswer(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.Repository = nil // a nil dereference in the handler
	err := b.as("anna").Get(t.Context(), "/api/v1/signatures", nil)
	wantProblem(t, err, 500, api.ProblemInternal)
	require.NoError(t, b.as("anna").Get(t.Context(), "/api/v1/me", nil))
}

func TestService(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	get := func(path string) (int, string) {
		resp := b.call("GET", path, "", nil)
		text, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(text)
	}
	code, text := get("/healthz")
	require.Equal(t, 200, code)
	require.Equal(t, "ok\n", text)
	code, text = get("/version")
	require.Equal(t, 200, code)
	require.Contains(t, text, "1.2.3")
	code, text = get("/readyz")
	require.Equal(t, 200, code, text)
	b.upload("01A", testFinding("F1", "blue"))
	b.auditHealth(io.ErrShortWrite)
	code, text = get("/readyz")
	require.Equal(t, 503, code)
	require.Contains(t, text, "critical audit_log_stalled")
	var s api.Status
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/status", &s))
	require.EqualValues(t, "critical", s.Health)
	require.EqualValues(t, 1, s.Findings["open"])
	code, text = get("/metrics")
	require.Equal(t, 200, code)
	require.Contains(t, text, `lazaret_manager_findings{state="open"} 1`)
	require.Contains(t, text, `lazaret_condition{code="audit_log_stalled",severity="critical"} 1`)
	require.Contains(t, text, `lazaret_manager_batches_total{result="new"} 1`)
	require.NotContains(t, text, "Dropper", "no names in metrics")
	b.auditHealth(nil)
	code, text = get("/api/v1/openapi.json")
	require.Equal(t, 200, code)
	want, err := b.OpenAPI()
	require.NoError(t, err)
	require.Equal(t, string(want), text)
}

func TestAuditRoutes(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	for range 3 {
		err := b.as("anna").Post(ctx, "/api/v1/scans", api.ScanRequest{}, nil)
		wantProblem(t, err, 403, api.ProblemDenied)
	}
	var all []api.AuditEntry
	for e, err := range api.List[api.AuditEntry](ctx, b.as("anna"), "/api/v1/audit/entries", api.Query("limit", "2")) {
		require.NoError(t, err)
		all = append(all, e)
	}
	require.Len(t, all, 4, "the node's token and three denied calls")
	require.EqualValues(t, 3, all[0].Index, "newest first")
	require.Equal(t, "user:anna", all[0].Actor)
	require.Equal(t, "denied", all[0].Decision)
	require.Equal(t, "scans.create", all[0].Action)
	require.Equal(t, "127.0.0.1", all[0].From)
	var page api.Page[api.AuditEntry]
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/audit/entries", &page, api.Query("action", "nodes.tokens.create")))
	require.Len(t, page.Items, 1)

	var cp api.AuditCheckpoint
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/audit/checkpoint", &cp))
	require.EqualValues(t, 4, cp.Size)
	var proof api.AuditProof
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/audit/entries/2/proof", &proof))
	require.NoError(t, audit.CheckProof(proof.Entry, proof.Index, proof.Proof, []byte(proof.Checkpoint), cp.Key))
	proof.Entry = bytes.ReplaceAll(proof.Entry, []byte("denied"), []byte("granted"))
	require.Error(t, audit.CheckProof(proof.Entry, proof.Index, proof.Proof, []byte(proof.Checkpoint), cp.Key))

	resp, err := b.as("anna").Open(ctx, "GET", "/api/v1/audit/export", nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	rep, err := audit.VerifyStream(resp.Body, audit.Options{Key: cp.Key, Remembered: []byte(cp.Checkpoint)})
	require.NoError(t, err)
	require.Empty(t, rep.Problems)
	require.GreaterOrEqual(t, rep.Size, int64(4))
}

// TestRestoredDatabase puts an older database beside a newer audit log.
func TestRestoredDatabase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	m := newManager(t, dir)
	require.NoError(t, m.Close())
	backup, err := os.ReadFile(filepath.Join(dir, "manager.db"))
	require.NoError(t, err)
	m = newManager(t, dir)
	_, err = m.NodeToken(t.Context(), "n1")
	require.NoError(t, err)
	require.NoError(t, m.appender.Flush(t.Context()))
	require.NoError(t, m.Close())
	for _, f := range []string{"manager.db-wal", "manager.db-shm"} {
		os.Remove(filepath.Join(dir, f))
	}
	require.NoError(t, os.WriteFile(filepath.Join(dir, "manager.db"), backup, 0o600))
	m = newManager(t, dir)
	require.EqualValues(t, 2, m.audit.Size())
	line, err := m.audit.Entry(1)
	require.NoError(t, err)
	require.Contains(t, string(line), "database.restored")
	require.NoError(t, m.Close())

	// The other way round: the log was taken away.
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "audit")))
	m, err = New(m.Config)
	require.ErrorIs(t, err, audit.ErrDamaged)
	require.Nil(t, m)
}

func TestFullDiskAndDamage(t *testing.T) {
	t.Parallel()
	b := bench(t)
	p := b.asProblem(t.Context(), fmt.Errorf("storing: %w", sqlite.ErrFull))
	require.Equal(t, 503, p.Status)
	require.Equal(t, "manager_disk_full", b.Conditions.List()[0].Code)
	p = b.asProblem(t.Context(), fmt.Errorf("reading: %w", sqlite.ErrCorrupt))
	require.Equal(t, 500, p.Status)
	require.Len(t, b.Conditions.List(), 2)

	dir := t.TempDir()
	m := newManager(t, dir)
	require.NoError(t, m.Close())
	f, err := os.OpenFile(filepath.Join(dir, "manager.db"), os.O_RDWR, 0)
	require.NoError(t, err)
	_, err = f.WriteAt(bytes.Repeat([]byte{0xa5}, 8192), 4096)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	_, err = New(m.Config)
	require.ErrorIs(t, err, sqlite.ErrCorrupt)
}

func TestPathNode(t *testing.T) {
	t.Parallel()
	require.Equal(t, "n1", pathNode("/api/v1/nodes/{node}/config", "/api/v1/nodes/n1/config"))
	require.Equal(t, "a/b", pathNode("/api/v1/nodes/{node}/config", "/api/v1/nodes/"+url.PathEscape("a/b")+"/config"))
	require.Empty(t, pathNode("/api/v1/findings/{id}", "/api/v1/findings/x"))
}
