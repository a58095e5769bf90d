// Package storetest is the conformance suite of the manager's store: what
// every database behind it has to do.
package storetest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/threat"
)

// Run runs the suite; open returns an empty store that the test closes.
func Run(t *testing.T, open func(t *testing.T) *store.Store) {
	for name, f := range map[string]func(*testing.T, *store.Store){
		"findings": findings, "triage": triage, "paging": paging, "decisions": decisions, "quarantine": quarantine,
		"policies": policies, "users": users, "tokens": tokens, "nodes": nodes, "commands": commands,
		"scans": scans, "allowed": allowed, "events": events, "audit": auditOutbox,
		"idempotency": idempotency, "expire": expire, "rollback": rollback, "settings": settings,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, open(t))
		})
	}
}

// in runs f as one change that must succeed.
func in(t *testing.T, s *store.Store, f func(tx *store.Tx) error) {
	t.Helper()
	require.NoError(t, s.Update(t.Context(), f))
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func finding(id string) threat.Finding {
	return threat.Finding{
		ID: id, Node: "n1", Time: start, LastSeen: start, State: threat.Open, Severity: threat.High,
		Workload: threat.Workload{ID: "container/a", Name: "web", Tenant: "blue"}, Object: threat.Hash{7},
		Location:   threat.Location{Path: "/tmp/Über.sh"},
		Detections: []threat.Detection{{Signature: "Lazaret.Dropper"}},
	}
}

func put(t *testing.T, s *store.Store, batch string, f threat.Finding) bool {
	t.Helper()
	var stored bool
	in(t, s, func(tx *store.Tx) (err error) { stored, err = tx.PutFinding(t.Context(), batch, f); return err })
	return stored
}

func findings(t *testing.T, s *store.Store) {
	ctx := t.Context()
	_, err := s.Finding(ctx, "F1")
	require.ErrorIs(t, err, store.ErrNotFound)
	f := finding("F1")
	require.True(t, put(t, s, "B2", f))
	f.Count = 9
	require.False(t, put(t, s, "B1", f), "an older batch changes nothing")
	require.False(t, put(t, s, "B2", f), "nor does the same one")
	f.Node = "n2"
	require.False(t, put(t, s, "B3", f), "another node does not own it")
	f.Node = "n1"
	require.True(t, put(t, s, "B3", f))
	got, err := s.Finding(ctx, "F1")
	require.NoError(t, err)
	require.Equal(t, 9, got.Count)
	require.EqualValues(t, 2, got.Rev)

	other := finding("F2")
	other.Severity, other.State, other.Workload = threat.Low, threat.Waiting, threat.Workload{ID: "host", Name: "n1"}
	other.Object = threat.Hash{8}
	put(t, s, "B4", other)
	for name, c := range map[string]struct {
		filter store.FindingFilter
		want   []string
	}{
		"all":           {store.FindingFilter{}, []string{"F2", "F1"}},
		"state":         {store.FindingFilter{States: []string{"waiting"}}, []string{"F2"}},
		"states":        {store.FindingFilter{States: []string{"waiting", "open"}}, []string{"F2", "F1"}},
		"severity":      {store.FindingFilter{Severity: threat.Medium}, []string{"F1"}},
		"workload id":   {store.FindingFilter{Workload: "container/a"}, []string{"F1"}},
		"workload name": {store.FindingFilter{Workload: "web"}, []string{"F1"}},
		"node":          {store.FindingFilter{Node: "n9"}, nil},
		"object":        {store.FindingFilter{Object: threat.Hash{8}.String()}, []string{"F2"}},
		"text":          {store.FindingFilter{Text: "DROPPER"}, []string{"F2", "F1"}},
		"text with %":   {store.FindingFilter{Text: "%"}, nil},
		"tenant":        {store.FindingFilter{Tenants: []string{"blue"}}, []string{"F1"}},
		"no tenant":     {store.FindingFilter{Tenants: []string{}}, nil},
	} {
		list, cursor, err := s.Findings(ctx, c.filter, store.Page{})
		require.NoError(t, err, name)
		require.Empty(t, cursor)
		var ids []string
		for _, f := range list {
			ids = append(ids, f.ID)
		}
		require.Equal(t, c.want, ids, name)
	}
	counts, err := s.CountFindings(ctx)
	require.NoError(t, err)
	require.Equal(t, map[string]int64{"open": 1, "waiting": 1}, counts)
}

func triage(t *testing.T, s *store.Store) {
	ctx := t.Context()
	state := func(id string) threat.State {
		f, err := s.Finding(ctx, id)
		require.NoError(t, err)
		return f.State
	}
	for _, id := range []string{"F1", "F2"} {
		put(t, s, "B1", finding(id))
	}
	in(t, s, func(tx *store.Tx) error {
		return errors.Join(tx.Triage(ctx, "F1", threat.Resolved), tx.Triage(ctx, "F2", threat.Dismissed))
	})
	f := finding("F1")
	put(t, s, "B2", f)
	require.Equal(t, threat.Resolved, state("F1"), "a newer version of the same sighting keeps it closed")
	for _, id := range []string{"F1", "F2"} {
		f := finding(id)
		f.LastSeen = time.Now().Add(time.Hour)
		put(t, s, "B3", f)
	}
	require.Equal(t, threat.Open, state("F1"), "seen again after it was resolved")
	require.Equal(t, threat.Dismissed, state("F2"), "a false positive stays one")
	require.ErrorIs(t, s.Update(ctx, func(tx *store.Tx) error { return tx.Triage(ctx, "nope", threat.Resolved) }), store.ErrNotFound)
}

func paging(t *testing.T, s *store.Store) {
	in(t, s, func(tx *store.Tx) error {
		for i := range 25 {
			if _, err := tx.PutFinding(t.Context(), "B1", finding(fmt.Sprintf("F%02d", i))); err != nil {
				return err
			}
		}
		return nil
	})
	var all []string
	cursor := ""
	for {
		list, next, err := s.Findings(t.Context(), store.FindingFilter{}, store.Page{After: cursor, Limit: 10})
		require.NoError(t, err)
		for _, f := range list {
			all = append(all, f.ID)
		}
		if cursor = next; next == "" {
			break
		}
	}
	require.Len(t, all, 25)
	require.Equal(t, "F24", all[0])
	require.Equal(t, "F00", all[24])
}

func decisions(t *testing.T, s *store.Store) {
	ctx := t.Context()
	f := finding("F1")
	f.Decisions = []threat.Decision{{Action: threat.Deny, By: "policy:default", At: start, Result: "done"}}
	put(t, s, "B1", f)
	mine := threat.Decision{Action: threat.Quarantine, By: "user:a", Reason: "r", At: start.Add(time.Minute), Result: "pending"}
	in(t, s, func(tx *store.Tx) error { return tx.AddDecision(ctx, "F1", mine, "C1") })
	got, err := s.Finding(ctx, "F1")
	require.NoError(t, err)
	require.Len(t, got.Decisions, 2)
	require.Equal(t, mine, got.Decisions[1])

	put(t, s, "B2", f)
	got, err = s.Finding(ctx, "F1")
	require.NoError(t, err)
	require.Len(t, got.Decisions, 2, "the node's next version does not lose it")

	in(t, s, func(tx *store.Tx) error {
		id, err := tx.SettleDecision(ctx, "C1", true, "moved")
		require.Equal(t, "F1", id)
		return err
	})
	got, err = s.Finding(ctx, "F1")
	require.NoError(t, err)
	require.Equal(t, "done", got.Decisions[1].Result)
	require.Equal(t, threat.Contained, got.State)

	f.Decisions = append(f.Decisions, threat.Decision{Action: threat.Quarantine, By: "user:a", At: start.Add(2 * time.Minute), Result: "done", Detail: "node's word"})
	put(t, s, "B3", f)
	got, err = s.Finding(ctx, "F1")
	require.NoError(t, err)
	require.Len(t, got.Decisions, 2, "the node's account of a decision replaces ours")
	require.Equal(t, "node's word", got.Decisions[1].Detail)
	in(t, s, func(tx *store.Tx) error {
		id, err := tx.SettleDecision(ctx, "unknown", true, "")
		require.Empty(t, id)
		return err
	})
}

func quarantine(t *testing.T, s *store.Store) {
	ctx := t.Context()
	item := api.QuarantineItem{ID: "Q1", Node: "n1", Finding: "F1", State: "held", Workload: threat.Workload{Tenant: "blue"}}
	put := func(batch string) (stored bool) {
		in(t, s, func(tx *store.Tx) (err error) { stored, err = tx.PutItem(ctx, batch, item); return err })
		return stored
	}
	require.True(t, put("B1"))
	n, err := s.CountHeld(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	for _, f := range []store.ItemFilter{{}, {State: "held"}, {Node: "n1"}, {Finding: "F1"}, {Tenants: []string{"blue"}}} {
		list, _, err := s.Items(ctx, f, store.Page{})
		require.NoError(t, err)
		require.Len(t, list, 1, f)
	}
	for _, f := range []store.ItemFilter{{State: "purged"}, {Node: "n2"}, {Finding: "F2"}, {Tenants: []string{"red"}}, {Tenants: []string{}}} {
		list, _, err := s.Items(ctx, f, store.Page{})
		require.NoError(t, err)
		require.Empty(t, list, f)
	}
	item.Node = "n2"
	require.False(t, put("B2"))
	item.Node, item.State = "n1", "purged"
	require.True(t, put("B2"))
	got, err := s.Item(ctx, "Q1")
	require.NoError(t, err)
	require.Equal(t, "purged", got.State)
	_, err = s.Item(ctx, "Q2")
	require.ErrorIs(t, err, store.ErrNotFound)
}

func policies(t *testing.T, s *store.Store) {
	ctx := t.Context()
	put := func(m store.Match) (p api.PolicyResource, err error) {
		err = s.Update(ctx, func(tx *store.Tx) error {
			p, err = tx.PutPolicy(ctx, "p", json.RawMessage(`{"a":1}`), "user:a", m)
			return err
		})
		return p, err
	}
	_, err := put(store.Match{ETag: "*"})
	require.ErrorIs(t, err, store.ErrPrecondition)
	p1, err := put(store.Match{None: true})
	require.NoError(t, err)
	require.EqualValues(t, 1, p1.Version)
	_, err = put(store.Match{None: true})
	require.ErrorIs(t, err, store.ErrConflict)
	p2, err := put(store.Match{ETag: p1.ETag})
	require.NoError(t, err)
	require.NotEqual(t, p1.ETag, p2.ETag)
	_, err = put(store.Match{ETag: p1.ETag})
	require.ErrorIs(t, err, store.ErrPrecondition)
	require.ErrorIs(t, s.Update(ctx, func(tx *store.Tx) error {
		return tx.DeletePolicy(ctx, "p", "user:a", store.Match{ETag: p1.ETag})
	}), store.ErrPrecondition)
	in(t, s, func(tx *store.Tx) error { return tx.DeletePolicy(ctx, "p", "user:b", store.Match{}) })
	_, err = s.Policy(ctx, "p")
	require.ErrorIs(t, err, store.ErrNotFound)
	p4, err := put(store.Match{})
	require.NoError(t, err)
	require.EqualValues(t, 4, p4.Version, "versions go on after a deletion")
	history, err := s.PolicyHistory(ctx, "p")
	require.NoError(t, err)
	require.Len(t, history, 4)
	require.Nil(t, history[1].Resource)
	require.Equal(t, "user:b", history[1].By)
	list, err := s.Policies(ctx)
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.JSONEq(t, `{"a":1}`, string(list[0].Resource))
}

func users(t *testing.T, s *store.Store) {
	ctx := t.Context()
	u := store.UserRecord{User: api.User{Name: "anna", Roles: []string{"owner"}, Tenants: []string{"blue"}}, Password: "x"}
	in(t, s, func(tx *store.Tx) error { return tx.AddUser(ctx, u) })
	require.ErrorIs(t, s.Update(ctx, func(tx *store.Tx) error { return tx.AddUser(ctx, u) }), store.ErrConflict)
	in(t, s, func(tx *store.Tx) error {
		return errors.Join(
			tx.AddToken(ctx, store.TokenRecord{Kind: store.TokenSession, Token: api.Token{ID: "S", User: "anna", Expires: tx.Now.Add(time.Hour)}}, [32]byte{1}),
			tx.AddToken(ctx, store.TokenRecord{Kind: store.TokenUser, Token: api.Token{ID: "T", User: "anna", Expires: tx.Now.Add(time.Hour)}}, [32]byte{2}))
	})
	u.Password = "y"
	in(t, s, func(tx *store.Tx) error { return tx.SetUser(ctx, u) })
	_, err := s.TokenByHash(ctx, [32]byte{1}, time.Now())
	require.ErrorIs(t, err, store.ErrNotFound, "a new password ends sessions")
	_, err = s.TokenByHash(ctx, [32]byte{2}, time.Now())
	require.NoError(t, err)
	got, err := s.User(ctx, "anna")
	require.NoError(t, err)
	require.Equal(t, "y", got.Password)
	require.Equal(t, []string{"blue"}, got.Tenants)
	in(t, s, func(tx *store.Tx) error { return tx.DeleteUser(ctx, "anna") })
	_, err = s.TokenByHash(ctx, [32]byte{2}, time.Now())
	require.ErrorIs(t, err, store.ErrNotFound, "tokens go with their user")
	list, err := s.Users(ctx)
	require.NoError(t, err)
	require.Empty(t, list)
	require.ErrorIs(t, s.Update(ctx, func(tx *store.Tx) error { return tx.SetUser(ctx, u) }), store.ErrNotFound)
}

func tokens(t *testing.T, s *store.Store) {
	ctx := t.Context()
	in(t, s, func(tx *store.Tx) error {
		for i, kind := range []string{store.TokenUser, store.TokenNode} {
			err := tx.AddToken(ctx, store.TokenRecord{Kind: kind, Token: api.Token{ID: kind, User: "x", Expires: tx.Now.Add(time.Hour)}}, [32]byte{byte(i)})
			if err != nil {
				return err
			}
		}
		return nil
	})
	got, err := s.TokenByHash(ctx, [32]byte{1}, time.Now())
	require.NoError(t, err)
	require.Equal(t, store.TokenNode, got.Kind)
	_, err = s.TokenByHash(ctx, [32]byte{1}, time.Now().Add(2*time.Hour))
	require.ErrorIs(t, err, store.ErrNotFound, "expired")
	list, err := s.Tokens(ctx, store.TokenUser, "x")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.ErrorIs(t, s.Update(ctx, func(tx *store.Tx) error {
		return tx.DeleteToken(ctx, store.TokenUser, "somebody", store.TokenUser)
	}), store.ErrNotFound)
	in(t, s, func(tx *store.Tx) error { return tx.DeleteToken(ctx, store.TokenUser, "x", store.TokenUser) })
}

func nodes(t *testing.T, s *store.Store) {
	ctx := t.Context()
	report := api.Report{Version: "1", Conditions: []threat.Condition{{Code: "a"}}}
	for i, want := range []bool{true, false, true} {
		if i == 2 {
			report.Conditions = nil
		}
		in(t, s, func(tx *store.Tx) error {
			changed, err := tx.PutReport(ctx, "n1", report)
			require.Equal(t, want, changed, i)
			return err
		})
	}
	n, err := s.Node(ctx, "n1")
	require.NoError(t, err)
	require.Equal(t, "1", n.Report.Version)
	require.WithinDuration(t, time.Now(), n.LastSeen, time.Minute)
	for _, want := range []bool{true, false} {
		in(t, s, func(tx *store.Tx) error {
			fresh, err := tx.SeeBatch(ctx, "n1", "B1")
			require.Equal(t, want, fresh)
			return err
		})
	}
	in(t, s, func(tx *store.Tx) error { return tx.DeleteNode(ctx, "n1") })
	_, err = s.Node(ctx, "n1")
	require.ErrorIs(t, err, store.ErrNotFound)
}

func commands(t *testing.T, s *store.Store) {
	ctx := t.Context()
	add := func(id, verb string) {
		in(t, s, func(tx *store.Tx) error {
			return tx.AddCommand(ctx, "n1", api.Command{ID: id, Verb: verb, Args: json.RawMessage(`{"password":"x"}`), Issued: start})
		})
	}
	for _, c := range []string{"C1", "C2", "C3"} {
		add(c, api.VerbPurge)
	}
	add("C4", api.VerbConfig)
	add("C5", api.VerbConfig)
	waiting := func(after int64) (ids []string) {
		list, err := s.Waiting(ctx, "n1", after)
		require.NoError(t, err)
		for _, c := range list {
			ids = append(ids, c.ID)
		}
		return ids
	}
	require.Equal(t, []string{"C1", "C2", "C3", "C5"}, waiting(0), "only the newest configuration counts")
	require.Equal(t, []string{"C3", "C5"}, waiting(2))
	answer := func(node, id string) (c api.CommandState, err error) {
		err = s.Update(ctx, func(tx *store.Tx) error {
			c, err = tx.Answer(ctx, node, api.CommandResult{Command: id, Error: "no"})
			return err
		})
		return c, err
	}
	_, err := answer("n2", "C2")
	require.ErrorIs(t, err, store.ErrNotFound, "only the node itself answers")
	c, err := answer("n1", "C2")
	require.NoError(t, err)
	require.Equal(t, "failed", c.State)
	_, err = answer("n1", "C2")
	require.ErrorIs(t, err, store.ErrNotFound, "answered already")
	require.Equal(t, []string{"C1", "C3", "C5"}, waiting(0))
	c, err = s.Command(ctx, "C2")
	require.NoError(t, err)
	require.Equal(t, "no", c.Result.Error)
	require.Empty(t, c.Args, "arguments are forgotten")
}

func scans(t *testing.T, s *store.Store) {
	ctx := t.Context()
	scan := api.Scan{ID: "S1", Node: "n1", State: "queued"}
	in(t, s, func(tx *store.Tx) error { return tx.AddScan(ctx, scan, "C1") })
	got, err := s.ScanOfCommand(ctx, "C1")
	require.NoError(t, err)
	require.Equal(t, "S1", got.ID)
	scan.State = "done"
	in(t, s, func(tx *store.Tx) error {
		stored, err := tx.PutScan(ctx, "B1", scan)
		require.True(t, stored)
		return err
	})
	list, _, err := s.Scans(ctx, "done", store.Page{})
	require.NoError(t, err)
	require.Len(t, list, 1)
	list, _, err = s.Scans(ctx, "queued", store.Page{})
	require.NoError(t, err)
	require.Empty(t, list)
	_, err = s.Scan(ctx, "S2")
	require.ErrorIs(t, err, store.ErrNotFound)
}

func allowed(t *testing.T, s *store.Store) {
	ctx := t.Context()
	in(t, s, func(tx *store.Tx) error {
		return errors.Join(
			tx.Allow(ctx, api.AllowedObject{Hash: threat.Hash{1}, Expires: tx.Now.Add(time.Hour), Reason: "a"}),
			tx.Allow(ctx, api.AllowedObject{Hash: threat.Hash{1}, Expires: tx.Now.Add(2 * time.Hour), Reason: "b"}),
			tx.Allow(ctx, api.AllowedObject{Hash: threat.Hash{2}, Expires: tx.Now.Add(-time.Hour)}))
	})
	list, err := s.Allowed(ctx, time.Now())
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.Equal(t, "b", list[0].Reason)
	in(t, s, func(tx *store.Tx) error {
		changed, err := tx.Expire(ctx)
		require.True(t, changed)
		return err
	})
	in(t, s, func(tx *store.Tx) error { return tx.Disallow(ctx, threat.Hash{1}.String()) })
	require.ErrorIs(t, s.Update(ctx, func(tx *store.Tx) error { return tx.Disallow(ctx, threat.Hash{1}.String()) }), store.ErrNotFound)
}

func events(t *testing.T, s *store.Store) {
	ctx := t.Context()
	changed, stop := s.Watch()
	in(t, s, func(tx *store.Tx) error {
		return errors.Join(tx.Emit(ctx, "a", "blue", 1), tx.Emit(ctx, "b", "", 2))
	})
	select {
	case <-changed:
	default:
		t.Fatal("no notice of the change")
	}
	stop()
	list, err := s.Events(ctx, 0, 10)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, "blue", list[0].Tenant)
	rest, err := s.Events(ctx, list[0].ID, 10)
	require.NoError(t, err)
	require.Equal(t, "b", rest[0].Name)
	oldest, newest, err := s.EventRange(ctx)
	require.NoError(t, err)
	require.Equal(t, list[0].ID, oldest)
	require.Equal(t, list[1].ID, newest)
}

func auditOutbox(t *testing.T, s *store.Store) {
	ctx := t.Context()
	in(t, s, func(tx *store.Tx) error {
		big := json.RawMessage(`"` + string(make([]byte, 0)) + fmt.Sprintf("%020000d", 1) + `"`)
		return errors.Join(tx.Audit(ctx, api.AuditEntry{Action: "a"}), tx.Audit(ctx, api.AuditEntry{Action: "b", Detail: big}))
	})
	first, list, err := s.Outbox().Pending(ctx, 10)
	require.NoError(t, err)
	require.Zero(t, first)
	require.Len(t, list, 2)
	require.Less(t, len(list[1]), 1000, "details are bounded")
	require.NoError(t, s.Outbox().Done(ctx, 1))
	first, list, err = s.Outbox().Pending(ctx, 10)
	require.NoError(t, err)
	require.EqualValues(t, 1, first)
	var e api.AuditEntry
	require.NoError(t, json.Unmarshal(list[0], &e))
	require.EqualValues(t, 1, e.Index)
	in(t, s, func(tx *store.Tx) error { return tx.SkipAudit(ctx, 10) })
	n, err := s.NextAudit(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 10, n)
	_, list, err = s.Outbox().Pending(ctx, 10)
	require.NoError(t, err)
	require.Empty(t, list)
}

func idempotency(t *testing.T, s *store.Store) {
	ctx := t.Context()
	in(t, s, func(tx *store.Tx) error { return tx.Remember(ctx, "user:a", "k", [32]byte{1}, "answer") })
	got, err := s.Repeated(ctx, "user:a", "k", [32]byte{1})
	require.NoError(t, err)
	require.JSONEq(t, `"answer"`, string(got))
	_, err = s.Repeated(ctx, "user:a", "k", [32]byte{2})
	require.ErrorIs(t, err, store.ErrKeyReused)
	got, err = s.Repeated(ctx, "user:b", "k", [32]byte{2})
	require.NoError(t, err)
	require.Nil(t, got)
}

func expire(t *testing.T, s *store.Store) {
	ctx := t.Context()
	in(t, s, func(tx *store.Tx) error {
		now := tx.Now
		tx.Now = now.Add(-100 * 24 * time.Hour)
		_, err := tx.SeeBatch(ctx, "n1", "B1")
		err = errors.Join(err, tx.Remember(ctx, "a", "k", [32]byte{}, 1),
			tx.AddToken(ctx, store.TokenRecord{Kind: store.TokenUser, Token: api.Token{ID: "T", User: "x", Expires: now.Add(-time.Second)}}, [32]byte{9}),
			tx.AddScan(ctx, api.Scan{ID: "00000000000000000000000000", State: "done"}, ""),
			tx.AddScan(ctx, api.Scan{ID: "00000000000000000000000001", State: "running"}, ""))
		tx.Now = now
		changed, xerr := tx.Expire(ctx)
		require.False(t, changed)
		return errors.Join(err, xerr)
	})
	got, err := s.Repeated(ctx, "a", "k", [32]byte{})
	require.NoError(t, err)
	require.Nil(t, got)
	list, err := s.Tokens(ctx, store.TokenUser, "x")
	require.NoError(t, err)
	require.Empty(t, list)
	all, _, err := s.Scans(ctx, "", store.Page{})
	require.NoError(t, err)
	require.Len(t, all, 1, "a scan that runs is kept")
	in(t, s, func(tx *store.Tx) error {
		fresh, err := tx.SeeBatch(ctx, "n1", "B1")
		require.True(t, fresh)
		return err
	})
}

// rollback: a change that fails leaves nothing, not even its audit entry.
func rollback(t *testing.T, s *store.Store) {
	ctx := t.Context()
	boom := errors.New("boom")
	require.ErrorIs(t, s.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.PutFinding(ctx, "B1", finding("F1"))
		return errors.Join(err, tx.Audit(ctx, api.AuditEntry{Action: "a"}), tx.Emit(ctx, "a", "", 1), boom)
	}), boom)
	_, err := s.Finding(ctx, "F1")
	require.ErrorIs(t, err, store.ErrNotFound)
	n, err := s.NextAudit(ctx)
	require.NoError(t, err)
	require.Zero(t, n)
	cancelled, cancel := context.WithCancel(ctx)
	cancel()
	require.Error(t, s.Update(cancelled, func(*store.Tx) error { return nil }))
	require.NoError(t, s.Check(ctx))
}

func settings(t *testing.T, s *store.Store) {
	ctx := t.Context()
	for _, v := range []string{"", "a", "b", ""} {
		in(t, s, func(tx *store.Tx) error { return tx.Set(ctx, "k", v) })
		got, err := s.Setting(ctx, "k")
		require.NoError(t, err)
		require.Equal(t, v, got)
	}
}
