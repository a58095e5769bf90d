package command

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/response"
	"github.com/lazaret/lazaret/internal/threat"
)

// fake is everything a runner needs; it writes down what it is asked to do.
type fake struct {
	did     []string
	results []api.CommandResult
	fail    error // of the parts that do something
	lookup  error // of Answered
	allowed bool
	path    string // of the last upload
	body    []byte
}

func (f *fake) do(what string) error { f.did = append(f.did, what); return f.fail }

func (f *fake) Answered(_ context.Context, id string) (bool, error) {
	for _, r := range f.results {
		if r.Command == id {
			return true, f.lookup
		}
	}
	return false, f.lookup
}

func (f *fake) AddResult(_ context.Context, r api.CommandResult) error {
	f.results = append(f.results, r)
	return nil
}

func (f *fake) Forget(_ context.Context, id string) error { return f.do("forget " + id) }

func (f *fake) Decide(_ context.Context, x threat.Finding, a threat.Action, by, reason string) (threat.Finding, error) {
	x.State = threat.Contained
	return x, f.do(string(a) + " " + x.ID + " " + by + " " + reason)
}

func (f *fake) Item(_ context.Context, id string) error {
	f.did = append(f.did, "report "+id)
	return nil
}

func (f *fake) Restore(_ context.Context, a api.RestoreArgs, allowed bool) (api.RestoreResult, error) {
	if !allowed {
		return api.RestoreResult{Verdict: threat.Malicious}, response.ErrStillMalicious
	}
	return api.RestoreResult{Path: "/back", Verdict: threat.Malicious}, f.do("restore " + a.Item)
}

func (f *fake) Get(_ context.Context, id string) (response.Item, error) {
	if id == "none" {
		return response.Item{}, response.ErrNoItem
	}
	return response.Item{QuarantineItem: api.QuarantineItem{ID: id, Object: threat.Hash{1}}}, nil
}

func (f *fake) Purge(_ context.Context, id string) (response.Item, error) {
	return response.Item{}, f.do("purge " + id)
}

func (f *fake) Export(_ context.Context, id, password string, w io.Writer) error {
	if err := f.do("export " + id + " " + password); err != nil {
		return err
	}
	_, err := io.WriteString(w, "archive")
	return err
}

func (f *fake) Start(_ context.Context, r api.ScanRequest) (api.Scan, error) {
	return api.Scan{ID: r.ID, State: "queued"}, f.do("scan " + r.ID)
}

func (f *fake) Cancel(_ context.Context, id string) error { return f.do("cancel " + id) }

func newRunner(t *testing.T, f *fake) *Runner {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err == nil {
			f.path, f.body = r.Method+" "+r.URL.Path, b
		}
	}))
	t.Cleanup(server.Close)
	client, err := api.NewClient(api.ClientConfig{URL: server.URL})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	return New(Config{
		Node: "n 1", Client: client, Results: f, Decider: f, Restorer: f, Vault: f, Scans: f,
		Allowed: func(threat.Hash) bool { return f.allowed },
		Refresh: func(context.Context) error { return f.do("refresh") },
		Logger:  slog.New(slog.DiscardHandler),
	})
}

func command(t *testing.T, verb string, args any) api.Command {
	t.Helper()
	b, err := json.Marshal(args)
	require.NoError(t, err)
	return api.Command{ID: "c1", Verb: verb, Args: b, By: "user:ann", Reason: "why"}
}

func TestVerbs(t *testing.T) {
	t.Parallel()
	decide := func(a threat.Action) api.DecideArgs {
		return api.DecideArgs{Finding: threat.Finding{ID: "f1"}, Action: a}
	}
	for name, c := range map[string]struct {
		verb    string
		args    any
		allowed bool
		fail    error
		did     []string
		err     string // of the answer; empty: it is good
		detail  string
	}{
		"config":             {verb: api.VerbConfig, did: []string{"refresh"}},
		"config fails":       {verb: api.VerbConfig, fail: errors.New("no manager"), did: []string{"refresh"}, err: "no manager"},
		"decide":             {verb: api.VerbDecide, args: decide(threat.Quarantine), did: []string{"quarantine f1 user:ann why"}, detail: `"contained"`},
		"decide fails":       {verb: api.VerbDecide, args: decide(threat.Kill), fail: errors.New("it is gone"), did: []string{"kill f1 user:ann why"}, err: "it is gone"},
		"resolve":            {verb: api.VerbDecide, args: decide("resolve"), did: []string{"forget f1"}},
		"dismiss":            {verb: api.VerbDecide, args: decide("dismiss"), did: []string{"forget f1"}},
		"allow":              {verb: api.VerbDecide, args: decide(threat.Allow), did: []string{"refresh", "forget f1"}},
		"allow fails":        {verb: api.VerbDecide, args: decide(threat.Allow), fail: errors.New("no manager"), did: []string{"refresh"}, err: "no manager"},
		"restore":            {verb: api.VerbRestore, args: api.RestoreArgs{Item: "i1"}, allowed: true, did: []string{"refresh", "restore i1", "report i1"}, detail: `"/back"`},
		"restore refused":    {verb: api.VerbRestore, args: api.RestoreArgs{Item: "i1"}, did: []string{"refresh"}, err: "still a threat", detail: `"malicious"`},
		"restore of nothing": {verb: api.VerbRestore, args: api.RestoreArgs{Item: "none"}, did: []string{"refresh"}, err: "no such"},
		"purge":              {verb: api.VerbPurge, args: api.PurgeArgs{Item: "i1"}, did: []string{"purge i1", "report i1"}},
		"purge fails":        {verb: api.VerbPurge, args: api.PurgeArgs{Item: "i1"}, fail: errors.New("busy"), did: []string{"purge i1"}, err: "busy"},
		"export":             {verb: api.VerbExport, args: api.ExportArgs{Item: "i1", Upload: "u/1", Password: "pw"}, did: []string{"export i1 pw"}},
		"export fails":       {verb: api.VerbExport, args: api.ExportArgs{Item: "i1", Upload: "u", Password: "pw"}, fail: errors.New("damaged"), did: []string{"export i1 pw"}, err: "damaged"},
		"scan":               {verb: api.VerbScan, args: api.ScanRequest{ID: "s1"}, did: []string{"scan s1"}, detail: `"queued"`},
		"cancel":             {verb: api.VerbCancelScan, args: api.ScanRef{ID: "s1"}, did: []string{"cancel s1"}},
		"unknown":            {verb: "dance", err: "update it"},
		"bad arguments":      {verb: api.VerbPurge, args: []int{1}, err: "arguments"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &fake{allowed: c.allowed, fail: c.fail}
			newRunner(t, f).Command(t.Context(), command(t, c.verb, c.args))
			require.Equal(t, c.did, f.did)
			require.Len(t, f.results, 1)
			r := f.results[0]
			require.Equal(t, "c1", r.Command)
			require.Equal(t, c.err == "", r.OK)
			require.Contains(t, r.Error, c.err)
			require.Contains(t, string(r.Detail), c.detail)
			require.False(t, r.Done.IsZero())
		})
	}
}

// TestRepeated: commands are delivered at least once and carried out once.
func TestRepeated(t *testing.T) {
	t.Parallel()
	f := &fake{}
	r := newRunner(t, f)
	for range 3 {
		r.Command(t.Context(), command(t, api.VerbPurge, api.PurgeArgs{Item: "i1"}))
	}
	require.Equal(t, []string{"purge i1", "report i1"}, f.did)
	require.Len(t, f.results, 1)
}

// TestNotLookedUp: without knowing whether it was done, nothing is done.
func TestNotLookedUp(t *testing.T) {
	t.Parallel()
	f := &fake{lookup: errors.New("disk error")}
	newRunner(t, f).Command(t.Context(), command(t, api.VerbPurge, api.PurgeArgs{Item: "i1"}))
	require.Empty(t, f.did)
	require.Empty(t, f.results)
}

func TestExportUploads(t *testing.T) {
	t.Parallel()
	f := &fake{}
	newRunner(t, f).Command(t.Context(), command(t, api.VerbExport, api.ExportArgs{Item: "i1", Upload: "u1", Password: "pw"}))
	require.True(t, f.results[0].OK, f.results[0].Error)
	require.Equal(t, "PUT /api/v1/nodes/n 1/uploads/u1", f.path)
	require.Equal(t, "archive", string(f.body))
}
