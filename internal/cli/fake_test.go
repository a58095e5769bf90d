package cli_test

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/config"
	"github.com/lazaret/lazaret/internal/manager"
	"github.com/lazaret/lazaret/internal/node/local"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/signature"
	"github.com/lazaret/lazaret/internal/threat"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// fakeScanner judges files by their names: virus, odd, locked, broken; a file
// named slow waits for the interruption, crash fails the scan.
type fakeScanner struct{}

// Scan implements cli.LocalScanner.
func (fakeScanner) Scan(ctx context.Context, _ config.Config, r api.ScanRequest, sink func(api.ScanLine) error) (sum api.ScanSummary, err error) {
	sum = api.ScanSummary{Elapsed: 2 * time.Second, Epoch: 7}
	if r.Container != "" {
		return sum, errors.New("no container runtime is known here")
	}
	for _, root := range append(r.Paths[:len(r.Paths):len(r.Paths)], r.Image) {
		if root == "" {
			continue
		}
		if root == "-" {
			root = os.DevNull
		}
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			return fakeFile(ctx, path, r.All, &sum, sink)
		})
		if err != nil {
			return sum, err
		}
	}
	return sum, nil
}

func fakeFile(ctx context.Context, path string, all bool, sum *api.ScanSummary, sink func(api.ScanLine) error) error {
	l := api.ScanLine{Kind: "object", Path: path, SHA256: threat.Hash{1}, Size: 5, Type: "text", Verdict: threat.Clean}
	sum.Files++
	sum.Objects++
	sum.Bytes += 5
	switch name := filepath.Base(path); {
	case strings.HasPrefix(name, "virus"):
		l.Verdict = threat.Malicious
		l.Detections = []threat.Detection{{Signature: "Test.Virus", Engine: "hash", Severity: threat.High, Technique: "T1059.004"}}
		sum.Malicious++
	case strings.HasPrefix(name, "odd"):
		l.Verdict = threat.Suspicious
		l.Detections = []threat.Detection{{Signature: "Test_Odd", Engine: "yara", Severity: threat.Medium, Description: "An odd file"}}
		sum.Suspicious++
	case strings.HasPrefix(name, "locked"):
		l.Path += "!/inner.txt"
		l.Verdict, l.Reasons = threat.Partial, []threat.Reason{{Code: threat.ReasonEncrypted, Text: "The member is encrypted."}}
		sum.Partial++
	case strings.HasPrefix(name, "broken"):
		l.SHA256 = threat.Hash{}
		l.Verdict, l.Reasons = threat.Error, []threat.Reason{{Code: threat.ReasonUnreadable, Text: "Reading is not possible."}}
		sum.Errors++
	case name == "crash":
		return errors.New("the engine is not there")
	case name == "slow":
		<-ctx.Done()
		return context.Cause(ctx)
	default:
		sum.Clean++
	}
	if l.Verdict == threat.Clean && !all {
		return nil
	}
	return sink(l)
}

// Run makes fakeScanner the node's scanner too.
func (f fakeScanner) Run(ctx context.Context, r api.ScanRequest, o scan.Options, sink func(api.ScanLine) error) (api.ScanSummary, error) {
	sum, err := f.Scan(ctx, config.Config{}, r, func(l api.ScanLine) error {
		l.Workload = "host" // tells the daemon's lines from local ones
		return sink(l)
	})
	if err == nil {
		err = sink(api.ScanLine{Kind: "summary", Summary: &sum})
	}
	return sum, err
}

// background runs f until the script ends.
func background(ts *testscript.TestScript, f func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	ts.Defer(func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
			ts.Logf("background: %v", err)
		}
	})
}

func awaitFile(ts *testscript.TestScript, path string) {
	for range 500 {
		if _, err := os.Stat(path); err == nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	ts.Fatalf("%s did not appear", path)
}

func startDaemon(ts *testscript.TestScript, _ bool, _ []string) {
	socket := filepath.Join(ts.Getenv("RUN"), "node.sock")
	background(ts, local.New(local.Config{
		Socket: socket, Scanner: fakeScanner{}, Logger: slog.New(slog.DiscardHandler),
		Found: func(context.Context, scan.Hit) error { return nil },
	}).Run)
	awaitFile(ts, socket)
}

// startManager starts a manager with the first user ada and one user a role.
func startManager(ts *testscript.TestScript, _ bool, _ []string) {
	dir, socket := ts.Getenv("RUN"), filepath.Join(ts.Getenv("RUN"), "manager.sock")
	repo := &fakeRepository{}
	conditions := &condition.Set{}
	conditions.Raise(threat.Condition{Code: "test_condition", Severity: threat.Medium, Text: "Something is odd.", Advice: "Look at it.", Since: at})
	m, err := manager.New(manager.Config{
		Dir: filepath.Join(dir, "manager"), Socket: socket, Repository: repo, Importer: fakeImporter{repo},
		Logger: slog.New(slog.DiscardHandler), Conditions: conditions, Version: "1.2.3", NodeWait: 5 * time.Second,
	})
	ts.Check(err)
	ts.Defer(func() { ts.Check(m.Close()) })
	background(ts, m.Run)
	awaitFile(ts, socket)
	ctx := context.Background()
	link, err := m.FirstSetup(ctx)
	ts.Check(err)
	stranger := client(ts, socket, "lzt_none")
	var c *api.Client
	ts.Setenv("TOKEN_nobody", "lzt_none")
	anonymous := client(ts, socket, "")
	ts.Check(anonymous.Post(ctx, api.Prefix+"/setup", api.SetupRequest{Token: link.Token, Name: "ada", Password: password}, nil))
	ts.Setenv("TOKEN_ada", logIn(ts, anonymous, "ada"))
	c = client(ts, socket, ts.Getenv("TOKEN_ada"))
	ts.Check(c.Post(ctx, api.Prefix+"/users", api.UserRequest{Name: "anna", Password: password, Roles: []string{"auditor"}}, nil))
	ts.Setenv("TOKEN_anna", logIn(ts, anonymous, "anna"))
	ts.Setenv("LAZARET_TOKEN", ts.Getenv("TOKEN_ada"))
	if err := stranger.Get(ctx, api.Prefix+"/status", nil); err == nil {
		ts.Fatalf("a wrong token was accepted")
	}
	secret, err := m.NodeToken(ctx, "n1")
	ts.Check(err)
	n := &fakeNode{client: client(ts, socket, secret)}
	n.upload(ts)
	background(ts, n.run)
}

const password = "correct horse battery"

func client(ts *testscript.TestScript, socket, token string) *api.Client {
	c, err := api.NewClient(api.ClientConfig{Socket: socket, Token: token})
	ts.Check(err)
	ts.Defer(func() { ts.Check(c.Close()) })
	return c
}

func logIn(ts *testscript.TestScript, c *api.Client, name string) string {
	b, err := json.Marshal(api.LoginRequest{Name: name, Password: password})
	ts.Check(err)
	resp, err := c.Open(context.Background(), http.MethodPost, api.Prefix+"/sessions", strings.NewReader(string(b)), api.Header("Content-Type", "application/json"))
	ts.Check(err)
	ts.Check(resp.Body.Close())
	var t api.Token
	k := resp.Cookies()[0]
	ts.Check(c.Post(context.Background(), api.Prefix+"/tokens", api.TokenRequest{Name: "test"}, &t, api.Header("Cookie", k.Name+"="+k.Value)))
	return t.Secret
}

// fakeRepository is a signature repository in memory.
type fakeRepository struct {
	mu      sync.Mutex
	bundles []api.Bundle
}

func (f *fakeRepository) List() ([]api.Bundle, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]api.Bundle(nil), f.bundles...), nil
}

func (f *fakeRepository) add(b api.Bundle) api.Bundle {
	f.mu.Lock()
	defer f.mu.Unlock()
	b.Epoch, b.Active, b.Created = threat.Epoch(len(f.bundles)+1), true, at
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

func (f *fakeRepository) Handler() http.Handler { return http.NotFoundHandler() }

// fakeImporter counts a rule per source; a source *.bad has an error, one
// called good.yar fails the self-test.
type fakeImporter struct{ repo *fakeRepository }

func (f fakeImporter) Import(_ context.Context, i manager.Import) (api.ImportReport, error) {
	rep := api.ImportReport{SelfTest: "passed"}
	err := filepath.WalkDir(i.Dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
			return err
		case strings.HasSuffix(path, ".bad"):
			name, err := filepath.Rel(i.Dir, path)
			rep.Errors = append(rep.Errors, api.ImportError{File: name, Line: 3, Rule: "Broken", Text: "syntax error"})
			return err
		case d.Name() == "good.yar":
			rep.SelfTest = "failed: Greedy matches the known-good file /bin/sh"
		}
		rep.Rules++
		return nil
	})
	if err == nil && !i.DryRun && rep.SelfTest == "passed" {
		b := f.repo.add(api.Bundle{By: i.By, Comment: i.Comment, Rules: rep.Rules})
		rep.Bundle = &b
	}
	return rep, err
}

// fakeNode reports two findings and their quarantine items, and carries
// commands out.
type fakeNode struct{ client *api.Client }

func (n *fakeNode) upload(ts *testscript.TestScript) {
	ctx := context.Background()
	web := threat.Workload{ID: "container/c1", Kind: threat.KindContainer, Name: "web-1", Tenant: "shop", Image: "shop:1", Runtime: "containerd"}
	finding := func(id, path string) threat.Finding {
		return threat.Finding{
			ID: id, Time: at, LastSeen: at, Node: "n1", Count: 1, State: threat.Contained, Trigger: "exec", Workload: web,
			Object: threat.Hash{1, 2, 3}, Location: threat.Location{Path: path, Layer: "upper"}, Verdict: threat.Malicious, Severity: threat.High,
			Process:    &threat.Process{PID: 7, Exe: "/bin/sh", UID: 33},
			Detections: []threat.Detection{{Signature: "Test.Virus", Engine: "hash", Severity: threat.High}},
			Decisions:  []threat.Decision{{Action: threat.Deny, By: "policy:default", At: at, Result: "done", Reason: "severity high"}},
			Policy:     "default", VaultID: "ITEM-" + id,
		}
	}
	item := func(id string) api.QuarantineItem {
		return api.QuarantineItem{
			ID: "ITEM-" + id, Node: "n1", Finding: id, Object: threat.Hash{1, 2, 3}, Size: 5, Workload: web,
			Location: threat.Location{Path: "/tmp/" + id}, UID: 33, GID: 33, Mode: 0o100755, Taken: at, Expires: at.Add(24 * time.Hour), State: "held",
		}
	}
	ts.Check(n.client.Post(ctx, api.Prefix+"/nodes/n1/report", api.Report{
		Version: "1.2.3", Epoch: 7, Workloads: []threat.Workload{{ID: "host", Kind: threat.KindHost, Name: "n1"}, web},
		Protected: []string{"/srv"}, Conditions: []threat.Condition{}, Stats: map[string]int64{"opens": 12},
	}, nil))
	ts.Check(n.client.Post(ctx, api.Prefix+"/nodes/n1/batches", api.Batch{
		ID: "b1", Sent: at, Findings: []threat.Finding{finding("F1", "/tmp/evil\x1b[2J"), finding("F2", "/tmp/F2")},
		Items: []api.QuarantineItem{item("F1"), item("F2")},
	}, nil))
}

// run answers commands: everything works, but restoring ITEM-F2 is refused and
// killing fails.
func (n *fakeNode) run(ctx context.Context) error {
	return n.client.Follow(ctx, api.Prefix+"/nodes/n1/commands", "", func(ev api.Event) error {
		var c api.Command
		if err := json.Unmarshal(ev.Data, &c); err != nil {
			return err
		}
		result := api.CommandResult{Command: c.ID, OK: true, Done: at}
		fail := func(text string) { result.OK, result.Error = false, text }
		switch c.Verb {
		case api.VerbConfig:
			return nil
		case api.VerbRestore:
			result.Detail = json.RawMessage(`{"path":"/tmp/F1","verdict":"clean"}`)
			if strings.Contains(string(c.Args), "ITEM-F2") {
				result.Detail = json.RawMessage(`{"path":"","verdict":"malicious"}`)
				fail("the file is still malicious")
			}
		case api.VerbDecide:
			var a api.DecideArgs
			if err := json.Unmarshal(c.Args, &a); err != nil {
				return err
			}
			if a.Action == threat.Kill {
				fail("the process has ended")
			}
		case api.VerbExport:
			var a api.ExportArgs
			if err := json.Unmarshal(c.Args, &a); err != nil {
				return err
			}
			err := n.client.Do(ctx, http.MethodPut, api.Prefix+"/nodes/n1/uploads/"+a.Upload, io.Reader(strings.NewReader("PK archive")), nil,
				api.Header("Content-Type", "application/zip"))
			if err != nil {
				return err
			}
		}
		return n.client.Post(ctx, api.Prefix+"/nodes/n1/batches", api.Batch{ID: c.ID, Sent: at, Results: []api.CommandResult{result}}, nil)
	})
}
