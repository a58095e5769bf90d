package manager

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/threat"
)

type storeTx = store.Tx

// verbs are those of node n1's waiting commands.
func (b *testBench) verbs() (out []string) {
	list, err := b.store.Waiting(b.t.Context(), "n1", 0)
	require.NoError(b.t, err)
	for _, c := range list {
		out = append(out, c.Verb)
	}
	return out
}

func TestAllowAndWithdraw(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	b.upload("01A", testFinding("F1", "blue"))
	sven := b.as("sven")
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/report", api.Report{}, nil))
	var f threat.Finding
	wantProblem(t, sven.Post(ctx, "/api/v1/findings/F1/decisions", api.DecisionRequest{Action: threat.Quarantine, Reason: "r", AllowFor: "1h"}, nil), 422, api.ProblemInvalid)
	wantProblem(t, sven.Post(ctx, "/api/v1/findings/F1/decisions", api.DecisionRequest{Action: threat.Allow, Reason: "r", AllowFor: "90000h"}, nil), 422, api.ProblemInvalid)
	wantProblem(t, sven.Post(ctx, "/api/v1/findings/F9/decisions", api.DecisionRequest{Action: threat.Allow, Reason: "r"}, nil), 404, api.ProblemNotFound)
	var before, after api.NodeConfig
	var tag string
	require.NoError(t, b.as("n1").Get(ctx, "/api/v1/nodes/n1/config", &before, api.ETag(&tag)))
	require.ErrorIs(t, b.as("n1").Get(ctx, "/api/v1/nodes/n1/config", nil, api.IfNoneMatch(tag)), api.ErrNotModified)
	require.NoError(t, sven.Post(ctx, "/api/v1/findings/F1/decisions", api.DecisionRequest{Action: threat.Allow, Reason: "our tool", AllowFor: "1h"}, &f))
	require.Equal(t, threat.Dismissed, f.State)
	require.Equal(t, []string{api.VerbConfig, api.VerbDecide}, b.verbs())
	require.NoError(t, b.as("n1").Get(ctx, "/api/v1/nodes/n1/config", &after, api.IfNoneMatch(tag)))
	require.Len(t, after.Allowed, 1)
	require.Equal(t, f.Object, after.Allowed[0].Hash)
	require.Equal(t, "user:sven", after.Allowed[0].By)

	var page api.Page[api.AllowedObject]
	require.NoError(t, sven.Get(ctx, "/api/v1/allowed", &page))
	require.Len(t, page.Items, 1)
	path := "/api/v1/allowed/" + strings.ToUpper(f.Object.String())
	require.NoError(t, sven.Delete(ctx, path))
	wantProblem(t, sven.Delete(ctx, path), 404, api.ProblemNotFound)
	wantProblem(t, sven.Delete(ctx, "/api/v1/allowed/xyz"), 422, api.ProblemInvalid)
}

func TestBatches(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	n1 := b.as("n1")
	f := testFinding("F1", "blue")
	f.Node = "n2" // a node cannot speak for another
	b.upload("01A", f)
	b.upload("01A", testFinding("F2", "blue"))
	got, err := b.store.Finding(ctx, "F1")
	require.NoError(t, err)
	require.Equal(t, "n1", got.Node)
	_, err = b.store.Finding(ctx, "F2")
	require.ErrorIs(t, err, store.ErrNotFound, "a repeated batch has no effect")
	wantProblem(t, n1.Post(ctx, "/api/v1/nodes/n1/batches", api.Batch{}, nil), 422, api.ProblemInvalid)
	wantProblem(t, n1.Post(ctx, "/api/v1/nodes/n2/batches", api.Batch{ID: "x"}, nil), 403, api.ProblemDenied)

	// Records without a sensible id are skipped, the rest is kept; fields of a
	// newer version are ignored.
	body := `{"id":"01B","newer":true,"findings":[{"id":""},{"id":"F3","surprise":1}],"quarantine":[{"id":""},{"id":"Q1","state":"held"}],
		"scans":[{"id":""},{"id":"S1","state":"running"}],"results":[{"command":"unknown"}]}`
	require.NoError(t, n1.Do(ctx, "POST", "/api/v1/nodes/n1/batches", []byte(body), nil, api.Header("Content-Type", "application/json")))
	_, err = b.store.Finding(ctx, "F3")
	require.NoError(t, err)
	item, err := b.store.Item(ctx, "Q1")
	require.NoError(t, err)
	require.Equal(t, "n1", item.Node)
	_, err = b.store.Scan(ctx, "S1")
	require.NoError(t, err)

	// A policy's decision is in the audit log, once.
	b.upload("01C", testFinding("F1", "blue"))
	var page api.Page[api.AuditEntry]
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/audit/entries", &page, api.Query("action", "finding.decision"), api.Query("target", "finding/F1")))
	require.Len(t, page.Items, 1)
	require.Equal(t, "node:n1", page.Items[0].Actor)
	require.Contains(t, string(page.Items[0].Detail), "policy:default")
}

func TestNodesAndWorkloads(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	report := api.Report{Version: "1", Workloads: []threat.Workload{
		{ID: "host", Kind: threat.KindHost, Name: "n1"},
		{ID: "container/a", Kind: threat.KindContainer, Name: "web", Tenant: "blue"},
		{ID: "container/b", Kind: threat.KindContainer, Name: "db", Tenant: "red"},
	}}
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/report", report, nil))
	var names []string
	for w, err := range api.List[threat.Workload](ctx, b.as("anna"), "/api/v1/workloads", api.Query("limit", "1")) {
		require.NoError(t, err)
		names = append(names, w.Name)
		require.Equal(t, "n1", w.Node)
	}
	require.Equal(t, []string{"web", "db", "n1"}, names)
	var page api.Page[threat.Workload]
	require.NoError(t, b.as("olga").Get(ctx, "/api/v1/workloads", &page))
	require.Len(t, page.Items, 1)
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/workloads", &page, api.Query("kind", "container"), api.Query("q", "DB")))
	require.Len(t, page.Items, 1)

	var x api.PolicyExplanation
	require.NoError(t, b.as("olga").Get(ctx, "/api/v1/explanation", &x, api.Query("workload", "web")))
	require.Equal(t, "default", x.Policy)
	require.NotEmpty(t, x.Considered)
	wantProblem(t, b.as("olga").Get(ctx, "/api/v1/explanation", nil, api.Query("workload", "db")), 404, api.ProblemNotFound)
	wantProblem(t, b.as("olga").Get(ctx, "/api/v1/explanation", nil), 422, api.ProblemInvalid)
	b.upload("01A", testFinding("F1", "blue"), testFinding("F2", "red"))
	require.NoError(t, b.as("olga").Get(ctx, "/api/v1/explanation", &x, api.Query("finding", "F1")))
	wantProblem(t, b.as("olga").Get(ctx, "/api/v1/explanation", nil, api.Query("finding", "F2")), 404, api.ProblemNotFound)

	var nodes api.Page[api.Node]
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/nodes", &nodes))
	require.Len(t, nodes.Items, 1)
	var n api.Node
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/nodes/n1", &n))
	require.Equal(t, "1", n.Report.Version)
	var k api.NodeToken
	require.NoError(t, b.as("paula").Post(ctx, "/api/v1/nodes/n1/tokens", nil, &k))
	wantProblem(t, b.as("n1").Get(ctx, "/api/v1/me", nil), 401, api.ProblemUnknown)
	b.secrets["n1"] = k.Secret
	require.NoError(t, b.as("n1").Get(ctx, "/api/v1/me", nil))
	wantProblem(t, b.as("paula").Post(ctx, "/api/v1/nodes/"+strings.Repeat("x", 300)+"/tokens", nil, nil), 422, api.ProblemInvalid)
	require.NoError(t, b.as("paula").Delete(ctx, "/api/v1/nodes/n1"))
	wantProblem(t, b.as("n1").Get(ctx, "/api/v1/me", nil), 401, api.ProblemUnknown)
}

const yamlPolicy = `apiVersion: lazaret/v1
kind: Policy
metadata:
  name: shop
spec:
  selector:
    matchLabels: {app: shop}
  mode: monitor
`

func TestPolicies(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	paula := b.as("paula")
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/report", api.Report{}, nil))
	put := func(text string, o ...api.Option) (p api.PolicyResource, err error) {
		err = paula.Do(ctx, "PUT", "/api/v1/policies/shop", []byte(text), &p, append(o, api.Header("Content-Type", "application/yaml"))...)
		return p, err
	}
	for text, want := range map[string]string{
		"# nothing": "exactly one",
		"kind: x":   "",
		"a: [":      "",
		strings.Replace(yamlPolicy, "mode", "mood", 1):                                                        "mood",
		strings.Replace(yamlPolicy, "shop", "other", 1):                                                       "the path",
		yamlPolicy + "---\n" + yamlPolicy:                                                                     "",
		yamlPolicy + "  exclusions:\n  - {paths: [/a], reason: r, owner: o, expires: 2020-01-01T00:00:00Z}\n": "past",
	} {
		_, err := put(text)
		p := wantProblem(t, err, 422, api.ProblemInvalid)
		require.Contains(t, p.Detail, want)
	}
	_, err := put(yamlPolicy, api.IfMatch("*"))
	wantProblem(t, err, 412, api.ProblemPrecondition)
	p1, err := put(yamlPolicy, api.IfNoneMatch("*"))
	require.NoError(t, err)
	require.Equal(t, []string{api.VerbConfig}, b.verbs())
	_, err = put(yamlPolicy, api.IfNoneMatch("*"))
	wantProblem(t, err, 409, api.ProblemConflict)
	p2, err := put(strings.Replace(yamlPolicy, "monitor", "enforce", 1), api.IfMatch(p1.ETag))
	require.NoError(t, err)
	_, err = put(yamlPolicy, api.IfMatch(p1.ETag))
	wantProblem(t, err, 412, api.ProblemPrecondition)
	_, err = put(string(p2.Resource))
	require.NoError(t, err, "what was read can be applied again")

	var tag string
	var got api.PolicyResource
	require.NoError(t, paula.Get(ctx, "/api/v1/policies/shop", &got, api.ETag(&tag)))
	require.Equal(t, got.ETag, tag)
	require.NoError(t, paula.Get(ctx, "/api/v1/policies/default", &got))
	require.Equal(t, builtIn, got.By)
	var page api.Page[api.PolicyResource]
	require.NoError(t, paula.Get(ctx, "/api/v1/policies", &page))
	require.Len(t, page.Items, 2)
	require.NoError(t, paula.Get(ctx, "/api/v1/policies/shop/history", &page))
	require.Len(t, page.Items, 3)
	wantProblem(t, paula.Get(ctx, "/api/v1/policies/none/history", nil), 404, api.ProblemNotFound)
	var c api.NodeConfig
	require.NoError(t, b.as("n1").Get(ctx, "/api/v1/nodes/n1/config", &c))
	require.Len(t, c.Policies, 2)
	wantProblem(t, paula.Delete(ctx, "/api/v1/policies/shop", api.IfMatch(p1.ETag)), 412, api.ProblemPrecondition)
	require.NoError(t, paula.Delete(ctx, "/api/v1/policies/shop", api.IfMatch(tag)))
	wantProblem(t, paula.Delete(ctx, "/api/v1/policies/shop"), 404, api.ProblemNotFound)
	wantProblem(t, b.as("sven").Delete(ctx, "/api/v1/policies/shop"), 403, api.ProblemDenied)
}

func TestScans(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	paula := b.as("paula")
	wantProblem(t, paula.Post(ctx, "/api/v1/scans", api.ScanRequest{Paths: []string{"/srv"}}, nil), 422, api.ProblemInvalid)
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/report", api.Report{}, nil))
	for _, r := range []api.ScanRequest{
		{}, {Paths: []string{"relative"}}, {Paths: []string{"/a"}, Container: "c"}, {Image: "x.tar"},
		{Paths: []string{"/a"}, Priority: "now"}, {Paths: []string{"/a"}, ID: "mine"}, {Paths: make([]string, 1001)},
	} {
		wantProblem(t, paula.Post(ctx, "/api/v1/scans", r, nil), 422, api.ProblemInvalid)
	}
	wantProblem(t, paula.Post(ctx, "/api/v1/scans", api.ScanRequest{Paths: []string{"/a"}, Node: "n7"}, nil), 404, api.ProblemNotFound)
	var s, again api.Scan
	require.NoError(t, paula.Post(ctx, "/api/v1/scans", api.ScanRequest{Paths: []string{"/srv"}}, &s, api.IdempotencyKey("k")))
	require.NoError(t, paula.Post(ctx, "/api/v1/scans", api.ScanRequest{Paths: []string{"/srv"}}, &again, api.IdempotencyKey("k")))
	require.Equal(t, s.ID, again.ID)
	require.Equal(t, "queued", s.State)
	require.Equal(t, "n1", s.Node)
	cmds, err := b.store.Waiting(ctx, "n1", 0)
	require.NoError(t, err)
	require.Len(t, cmds, 1)
	var r api.ScanRequest
	require.NoError(t, json.Unmarshal(cmds[0].Args, &r))
	require.Equal(t, s.ID, r.ID)

	var a api.Accepted
	require.NoError(t, paula.Post(ctx, "/api/v1/scans/"+s.ID+"/cancel", nil, &a))
	require.NotEmpty(t, a.Command)
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/batches", api.Batch{ID: "01A", Results: []api.CommandResult{
		{Command: cmds[0].ID, Error: "no such directory", Done: time.Now()},
	}}, nil))
	require.NoError(t, paula.Get(ctx, "/api/v1/scans/"+s.ID, &s))
	require.Equal(t, "failed", s.State)
	require.Equal(t, "no such directory", s.Error)
	wantProblem(t, paula.Post(ctx, "/api/v1/scans/"+s.ID+"/cancel", nil, nil), 409, api.ProblemConflict)
	var page api.Page[api.Scan]
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/scans", &page, api.Query("state", "failed")))
	require.Len(t, page.Items, 1)
}

func heldItem(id, tenant string) api.QuarantineItem {
	return api.QuarantineItem{ID: id, State: "held", Object: threat.Hash{5}, Workload: threat.Workload{ID: "container/x", Tenant: tenant}}
}

func TestQuarantine(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	sven := b.as("sven")
	send := func(batch string, items ...api.QuarantineItem) {
		require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/batches", api.Batch{ID: batch, Items: items}, nil))
	}
	send("01A", heldItem("Q1", "blue"), heldItem("Q2", "red"))
	var page api.Page[api.QuarantineItem]
	require.NoError(t, b.as("olga").Get(ctx, "/api/v1/quarantine", &page))
	require.Len(t, page.Items, 1)
	wantProblem(t, b.as("olga").Get(ctx, "/api/v1/quarantine/Q2", nil), 404, api.ProblemNotFound)
	require.NoError(t, b.as("olga").Get(ctx, "/api/v1/quarantine/Q1", nil))

	var a api.Accepted
	wantProblem(t, sven.Post(ctx, "/api/v1/quarantine/Q1/restore", api.RestoreRequest{}, nil), 422, api.ProblemInvalid)
	wantProblem(t, sven.Post(ctx, "/api/v1/quarantine/Q9/restore", api.RestoreRequest{Reason: "r"}, nil), 404, api.ProblemNotFound)
	require.NoError(t, sven.Post(ctx, "/api/v1/quarantine/Q1/restore", api.RestoreRequest{Reason: "ours", AllowFor: "1h"}, &a, api.IdempotencyKey("k")))
	require.Equal(t, []string{api.VerbConfig, api.VerbRestore}, b.verbs(), "the node learns of the permission first")
	var again api.Accepted
	require.NoError(t, sven.Post(ctx, "/api/v1/quarantine/Q1/restore", api.RestoreRequest{Reason: "ours", AllowFor: "1h"}, &again, api.IdempotencyKey("k")))
	require.Equal(t, a, again)

	item := heldItem("Q1", "blue")
	item.State = "restored"
	send("01B", item)
	wantProblem(t, sven.Post(ctx, "/api/v1/quarantine/Q1/restore", api.RestoreRequest{Reason: "r"}, nil), 409, api.ProblemConflict)
	wantProblem(t, sven.Post(ctx, "/api/v1/quarantine/Q1/purge", api.PurgeRequest{Reason: "r"}, nil), 409, api.ProblemConflict)
	require.NoError(t, sven.Post(ctx, "/api/v1/quarantine/Q2/purge", api.PurgeRequest{Reason: "r"}, &a))
	require.NoError(t, sven.Get(ctx, "/api/v1/quarantine", &page, api.Query("state", "held")))
	require.Len(t, page.Items, 1)
}

// TestExport relays an archive from the node to a person.
func TestExport(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/batches", api.Batch{ID: "01A", Items: []api.QuarantineItem{heldItem("Q1", "")}}, nil))
	content := bytes.Repeat([]byte("archive"), 1<<18) // more than any buffer
	serve := func(f func(a api.ExportArgs, c api.Command)) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		go b.as("n1").Follow(ctx, "/api/v1/nodes/n1/commands", "", func(ev api.Event) error {
			var c api.Command
			var a api.ExportArgs
			if json.Unmarshal(ev.Data, &c) == nil && json.Unmarshal(c.Args, &a) == nil {
				f(a, c)
			}
			return nil
		})
		return cancel
	}
	ask := func() (*http.Response, error) {
		body, err := json.Marshal(api.ExportRequest{Reason: "analysis", Password: "infected"})
		require.NoError(t, err)
		return b.as("sven").Open(ctx, "POST", "/api/v1/quarantine/Q1/export", bytes.NewReader(body), api.Header("Content-Type", "application/json"))
	}
	uploaded := make(chan error, 1)
	stop := serve(func(a api.ExportArgs, _ api.Command) {
		if a.Password != "infected" || a.Item != "Q1" {
			uploaded <- io.ErrNoProgress
			return
		}
		uploaded <- b.as("n1").Put(ctx, "/api/v1/nodes/n1/uploads/"+a.Upload, bytes.NewReader(content), nil)
	})
	resp, err := ask()
	require.NoError(t, err)
	got, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, content, got)
	require.Equal(t, "application/zip", resp.Header.Get("Content-Type"))
	require.NoError(t, <-uploaded)
	stop()
	cmds, err := b.store.Waiting(ctx, "n1", 0)
	require.NoError(t, err)
	require.Len(t, cmds, 1)
	answer := func(batch, id string) {
		require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/batches", api.Batch{ID: batch, Results: []api.CommandResult{{Command: id, Error: "vault is damaged"}}}, nil))
	}
	answer("01B", cmds[0].ID)

	// The node says no.
	stop = serve(func(_ api.ExportArgs, c api.Command) { answer("01C", c.ID) })
	_, err = ask()
	p := wantProblem(t, err, 409, api.ProblemConflict)
	require.Contains(t, p.Detail, "vault is damaged")
	stop()

	// Nobody answers: the command is withdrawn.
	_, err = ask()
	wantProblem(t, err, 504, api.ProblemTimeout)
	require.Empty(t, b.verbs())

	// The node breaks off: the person sees that the archive is not whole.
	stop = serve(func(a api.ExportArgs, _ api.Command) {
		r := io.MultiReader(bytes.NewReader(content), failing{})
		uploaded <- b.as("n1").Put(ctx, "/api/v1/nodes/n1/uploads/"+a.Upload, r, nil)
	})
	resp, err = ask()
	require.NoError(t, err)
	_, err = io.ReadAll(resp.Body)
	require.Error(t, err)
	require.NoError(t, resp.Body.Close())
	require.Error(t, <-uploaded)
	stop()
	wantProblem(t, b.as("n1").Put(ctx, "/api/v1/nodes/n1/uploads/unknown", strings.NewReader("x"), nil), 404, api.ProblemNotFound)
	body := api.ExportRequest{Reason: "r", Password: "x"}
	wantProblem(t, b.as("sven").Post(ctx, "/api/v1/quarantine/Q1/export", body, nil), 422, api.ProblemInvalid)

	// The password is in no audit entry and no stored command.
	require.NoError(t, b.appender.Flush(ctx))
	log, err := os.ReadFile(b.Dir + "/audit/entries.jsonl")
	require.NoError(t, err)
	require.NotContains(t, string(log), "infected")
}

type failing struct{}

func (failing) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func tarOf(t *testing.T, files map[string]*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for name, h := range files {
		if h == nil {
			h = &tar.Header{Typeflag: tar.TypeReg, Mode: 0o777}
		}
		h.Name = name
		if h.Typeflag == tar.TypeReg {
			h.Size = 3
		}
		require.NoError(t, w.WriteHeader(h))
		if h.Typeflag == tar.TypeReg {
			_, err := w.Write([]byte("abc"))
			require.NoError(t, err)
		}
	}
	require.NoError(t, w.Close())
	return out.Bytes()
}

func TestSignatures(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	sven := b.as("sven")
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/report", api.Report{}, nil))
	send := func(body []byte, o ...api.Option) (rep api.ImportReport, err error) {
		err = sven.Do(ctx, "POST", "/api/v1/signatures/import", body, &rep, append(o, api.Header("Content-Type", "application/x-tar"))...)
		return rep, err
	}
	good := tarOf(t, map[string]*tar.Header{"a/b/x.yar": nil, "y.bad": nil})
	rep, err := send(good, api.Query("dry_run", "true"))
	require.NoError(t, err)
	require.Nil(t, rep.Bundle)
	require.Len(t, rep.Errors, 1)
	require.Empty(t, b.verbs())
	rep, err = send(good, api.Query("comment", "weekly"))
	require.NoError(t, err)
	require.EqualValues(t, 1, rep.Bundle.Epoch)
	require.Equal(t, "user:sven", rep.Bundle.By)
	require.Equal(t, []string{api.VerbConfig}, b.verbs())
	for name, body := range map[string][]byte{
		"nothing":    {},
		"no tar":     []byte(strings.Repeat("x", 1024)),
		"no files":   tarOf(t, nil),
		"escaping":   tarOf(t, map[string]*tar.Header{"../../etc/x": nil}),
		"absolute":   tarOf(t, map[string]*tar.Header{"/etc/x": nil}),
		"symlink":    tarOf(t, map[string]*tar.Header{"x": {Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}}),
		"device":     tarOf(t, map[string]*tar.Header{"x": {Typeflag: tar.TypeChar}}),
		"cut":        good[:514],
		"file twice": append(bytes.TrimRight(tarOf(t, map[string]*tar.Header{"x": nil}), "\x00"), append(make([]byte, 509), tarOf(t, map[string]*tar.Header{"x": nil})...)...),
	} {
		_, err := send(body)
		require.Error(t, err, name)
		wantProblem(t, err, 422, api.ProblemInvalid)
	}
	left, err := os.ReadDir(b.Dir)
	require.NoError(t, err)
	for _, e := range left {
		require.False(t, strings.HasPrefix(e.Name(), "import-"), "import directories are removed")
	}
	wantProblem(t, sven.Post(ctx, "/api/v1/signatures/rollback", api.RollbackRequest{Epoch: 1}, nil), 422, api.ProblemInvalid)
	wantProblem(t, sven.Post(ctx, "/api/v1/signatures/rollback", api.RollbackRequest{Epoch: 7, Reason: "r"}, nil), 404, api.ProblemNotFound)
	var bundle api.Bundle
	require.NoError(t, sven.Post(ctx, "/api/v1/signatures/rollback", api.RollbackRequest{Epoch: 1, Reason: "too many false positives"}, &bundle))
	require.EqualValues(t, 2, bundle.Epoch)
	var page api.Page[api.Bundle]
	require.NoError(t, sven.Get(ctx, "/api/v1/signatures", &page))
	require.Len(t, page.Items, 2)
	var c api.NodeConfig
	require.NoError(t, b.as("n1").Get(ctx, "/api/v1/nodes/n1/config", &c))
	require.EqualValues(t, 2, c.Epoch)
	require.NoError(t, b.AfterPublish(ctx, api.Bundle{Epoch: 3, By: "system"}))

	resp, err := b.as("n1").Open(ctx, "GET", "/api/v1/signatures/tuf/metadata/timestamp.json", nil)
	require.NoError(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	require.Equal(t, "tuf /metadata/timestamp.json", string(text))
	require.Equal(t, "public", resp.Header.Get("Cache-Control"))
}
