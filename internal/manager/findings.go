package manager

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/threat"
)

// Permission to use an object that signatures call malicious is always for a
// time.
const (
	defaultAllow = 30 * 24 * time.Hour
	maxAllow     = 366 * 24 * time.Hour
)

type findingsIn struct {
	Paging
	State    []string `query:"state" doc:"open, waiting, contained, resolved, dismissed"`
	Severity string   `query:"severity" enum:"informational,low,medium,high,critical" doc:"at least"`
	Workload string   `query:"workload" doc:"id or name"`
	Node     string   `query:"node"`
	Object   string   `query:"object" doc:"SHA-256"`
	Text     string   `query:"q" maxLength:"200" doc:"text in path, image, names or signatures"`
}

func (m *Manager) listFindings(ctx context.Context, in *findingsIn) (*answer[api.Page[threat.Finding]], error) {
	list, cursor, err := m.store.Findings(ctx, store.FindingFilter{
		States: in.State, Severity: threat.Severity(in.Severity), Workload: in.Workload, Node: in.Node,
		Object: in.Object, Text: in.Text, Tenants: callOf(ctx).tenants(),
	}, store.Page{After: in.PageToken, Limit: in.Limit})
	page := api.Page[threat.Finding]{Items: []threat.Finding{}, NextPageToken: cursor}
	for _, f := range list {
		page.Items = append(page.Items, f.Finding)
	}
	return &answer[api.Page[threat.Finding]]{page}, err
}

func findingTag(f store.FindingRecord) string { return fmt.Sprintf(`"%s-%d"`, f.ID, f.Rev) }

func (m *Manager) getFinding(ctx context.Context, in *ByID) (*tagged[threat.Finding], error) {
	f, err := m.store.Finding(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	if !callOf(ctx).sees(f.Workload.Tenant) {
		return nil, fmt.Errorf("finding %s: %w", in.ID, store.ErrNotFound) // not even that it exists
	}
	return &tagged[threat.Finding]{findingTag(f), f.Finding}, nil
}

type decideIn struct {
	ByID
	Keyed
	IfMatch string `header:"If-Match" doc:"decide only if the finding is still the one that was read"`
	Body    api.DecisionRequest
}

// decided is what an idempotency key remembers of a decision.
type decided struct {
	Finding threat.Finding
	Tag     string
}

// decide records a person's decision. What has to be done on the node becomes
// a command; its outcome appears in the finding.
func (m *Manager) decide(ctx context.Context, in *decideIn) (*tagged[threat.Finding], error) {
	if err := checkReason(in.Body.Reason); err != nil {
		return nil, err
	}
	life := defaultAllow
	if in.Body.AllowFor != "" {
		if in.Body.Action != threat.Allow {
			return nil, invalid("allow_for belongs to the action allow")
		}
		var err error
		if life, err = duration(in.Body.AllowFor, maxAllow); err != nil {
			return nil, err
		}
	}
	by := callOf(ctx).principal.Name
	out, err := act(ctx, m, in.Keyed, in.Body, func(tx *store.Tx, e *api.AuditEntry) (decided, error) {
		f, err := tx.Finding(ctx, in.ID)
		if err != nil {
			return decided{}, err
		}
		if in.IfMatch != "" && in.IfMatch != findingTag(f) {
			return decided{}, fmt.Errorf("finding %s: %w", in.ID, store.ErrPrecondition)
		}
		e.Target, e.Reason = "finding/"+f.ID, in.Body.Reason
		e.Detail = detail(map[string]any{"action": in.Body.Action, "object": f.Object, "node": f.Node, "path": f.Location.Path})
		if err := m.carryOut(ctx, tx, f.Finding, in.Body, by, life); err != nil {
			return decided{}, err
		}
		if f, err = tx.Finding(ctx, in.ID); err != nil {
			return decided{}, err
		}
		return decided{f.Finding, findingTag(f)}, tx.Emit(ctx, api.EventFinding, f.Workload.Tenant, f.Finding)
	})
	return &tagged[threat.Finding]{out.Tag, out.Finding}, err
}

// carryOut writes the decision and whatever follows from it.
func (m *Manager) carryOut(ctx context.Context, tx *store.Tx, f threat.Finding, r api.DecisionRequest, by string, life time.Duration) error {
	d := threat.Decision{Action: r.Action, By: by, Reason: r.Reason, At: tx.Now, Result: threat.ResultDone}
	switch r.Action {
	case api.Resolve, api.Dismiss:
		state := threat.Resolved
		if r.Action == api.Dismiss {
			state = threat.Dismissed
		}
		if err := tx.Triage(ctx, f.ID, state); err != nil {
			return err
		}
		// The node makes a new finding if it sees the object there again.
		if _, err := command(ctx, tx, f.Node, api.VerbDecide, by, r.Reason, api.DecideArgs{Finding: f, Action: r.Action}); err != nil {
			return err
		}
		return tx.AddDecision(ctx, f.ID, d, "")
	case threat.Allow:
		if f.Object.IsZero() {
			return invalid("the finding names no object that could be allowed")
		}
		a := api.AllowedObject{Hash: f.Object, Reason: r.Reason, By: by, Expires: tx.Now.Add(life)}
		if err := tx.Allow(ctx, a); err != nil {
			return err
		}
		if err := m.reconfigure(ctx, tx, by, "object allowed"); err != nil {
			return err
		}
		if err := tx.Triage(ctx, f.ID, threat.Dismissed); err != nil {
			return err
		}
		f.State = threat.Dismissed
	case threat.Quarantine, threat.Delete, threat.Kill:
	default:
		return invalid("%q is not a decision: choose quarantine, delete, kill, allow, resolve or dismiss", r.Action)
	}
	cmd, err := command(ctx, tx, f.Node, api.VerbDecide, by, r.Reason, api.DecideArgs{Finding: f, Action: r.Action})
	if err != nil {
		return err
	}
	d.Result = threat.ResultPending
	return tx.AddDecision(ctx, f.ID, d, cmd.ID)
}

func (m *Manager) listAllowed(ctx context.Context, _ *empty) (*answer[api.Page[api.AllowedObject]], error) {
	list, err := m.store.Allowed(ctx, time.Now())
	return &answer[api.Page[api.AllowedObject]]{api.Page[api.AllowedObject]{Items: list}}, err
}

type objectIn struct {
	SHA256 string `path:"sha256" pattern:"^[0-9a-fA-F]{64}$"`
}

func (m *Manager) deleteAllowed(ctx context.Context, in *objectIn) (*struct{}, error) {
	hash := strings.ToLower(in.SHA256)
	return nil, m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target = "object/" + hash
		if err := tx.Disallow(ctx, hash); err != nil {
			return err
		}
		return m.reconfigure(ctx, tx, e.Actor, "permission withdrawn")
	})
}

func (m *Manager) getCommand(ctx context.Context, in *ByID) (*answer[api.CommandState], error) {
	c, err := m.store.Command(ctx, in.ID)
	c.Args = nil // may hold a password
	return &answer[api.CommandState]{c}, err
}
