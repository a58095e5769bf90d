package manager

import (
	"context"
	"encoding/json"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/authz"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// call is one request on its way through the manager.
type call struct {
	id        string
	principal authz.Principal
	rule      authz.Rule
	scope     authz.Scope
	node      string // named in the path
	target    string // path, for the audit log

	// What became of it, for the audit log.
	audited bool
	problem *api.Problem
}

type callKey struct{}

// callOf returns the request's call; code outside requests gets an empty one.
func callOf(ctx context.Context) *call {
	if c, ok := ctx.Value(callKey{}).(*call); ok {
		return c
	}
	return &call{}
}

// tenants is the filter of a caller that sees only its tenants, nil for all.
func (c *call) tenants() []string {
	if c.scope != authz.Tenant {
		return nil
	}
	if c.principal.Tenants == nil {
		return []string{}
	}
	return c.principal.Tenants
}

// sees reports whether the caller may see records of a tenant.
func (c *call) sees(tenant string) bool {
	list := c.tenants()
	if list == nil {
		return true
	}
	for _, t := range list {
		if t == tenant && t != "" {
			return true
		}
	}
	return false
}

// entry is the call's audit entry.
func (c *call) entry(target, reason string, detail any) api.AuditEntry {
	e := api.AuditEntry{
		Actor: c.principal.Name, From: c.principal.From, Action: c.rule.Action,
		Target: target, Decision: "allowed", Reason: reason,
	}
	if e.Actor == "" {
		e.Actor = "anonymous"
	}
	if detail != nil {
		if b, err := json.Marshal(detail); err == nil {
			e.Detail = b
		}
	}
	return e
}

// change runs f and writes the call's audit entry in the same transaction.
// Target, reason and detail are read after f, so f may fill them.
func (m *Manager) change(ctx context.Context, f func(tx *store.Tx, e *api.AuditEntry) error) error {
	c := callOf(ctx)
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		e := c.entry(c.target, "", nil)
		if err := f(tx, &e); err != nil {
			return err
		}
		return tx.Audit(ctx, e)
	})
	if err == nil {
		c.audited = true
	}
	return err
}

// detail encodes an audit entry's detail.
func detail(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		return nil // the types are ours and always marshal
	}
	return b
}
