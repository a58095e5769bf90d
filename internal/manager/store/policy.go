package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/api"
)

// Match is the precondition of a change: the tag the caller saw. The zero value
// asks for nothing.
type Match struct {
	ETag string // If-Match; "*": must exist
	None bool   // If-None-Match: *: must not exist
}

func (m Match) check(current string) error {
	switch {
	case m.None && current != "":
		return ErrConflict
	case m.ETag == "*" && current == "", m.ETag != "" && m.ETag != "*" && m.ETag != current:
		return ErrPrecondition
	}
	return nil
}

// PutPolicy creates or changes a policy and keeps the version in its history.
func (t *Tx) PutPolicy(ctx context.Context, name string, resource json.RawMessage, by string, m Match) (api.PolicyResource, error) {
	old, err := t.maybePolicy(ctx, name)
	if err != nil {
		return api.PolicyResource{}, err
	}
	if err := m.check(old.ETag); err != nil {
		return api.PolicyResource{}, fmt.Errorf("policy %s: %w", name, err)
	}
	if old.Version, err = t.lastVersion(ctx, name); err != nil {
		return api.PolicyResource{}, err
	}
	p := api.PolicyResource{Name: name, Resource: resource, Version: old.Version + 1, Updated: t.Now, By: by}
	p.ETag = policyTag(p)
	_, err = t.exec(ctx, "storing policy", `INSERT INTO policy (name, version, etag, updated, by, resource) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET version = excluded.version, etag = excluded.etag,
		updated = excluded.updated, by = excluded.by, resource = excluded.resource`,
		name, p.Version, p.ETag, t.Now.UnixNano(), by, string(resource))
	if err != nil {
		return p, err
	}
	return p, t.policyVersion(ctx, p.Name, p.Version, by, string(resource))
}

func policyTag(p api.PolicyResource) string {
	h := sha256.Sum256(fmt.Appendf(nil, "%s\n%d\n%s", p.Name, p.Version, p.Resource))
	return fmt.Sprintf(`"%x"`, h[:12])
}

func (t *Tx) policyVersion(ctx context.Context, name string, version int64, by string, resource any) error {
	_, err := t.exec(ctx, "storing policy history",
		"INSERT INTO policy_history (name, version, updated, by, resource) VALUES (?, ?, ?, ?, ?)",
		name, version, t.Now.UnixNano(), by, resource)
	return err
}

// lastVersion counts on after a deletion, so that a version names one content.
func (r Reader) lastVersion(ctx context.Context, name string) (v int64, err error) {
	err = r.q.QueryRowContext(ctx, "SELECT coalesce(max(version), 0) FROM policy_history WHERE name = ?", name).Scan(&v)
	if err != nil {
		return 0, fmt.Errorf("reading policy history: %w", err)
	}
	return v, nil
}

// DeletePolicy removes a policy; its history stays.
func (t *Tx) DeletePolicy(ctx context.Context, name, by string, m Match) error {
	old, err := t.Policy(ctx, name)
	if err != nil {
		return err
	}
	if err := m.check(old.ETag); err != nil {
		return fmt.Errorf("policy %s: %w", name, err)
	}
	if err := t.change(ctx, "policy "+name, "DELETE FROM policy WHERE name = ?", name); err != nil {
		return err
	}
	return t.policyVersion(ctx, name, old.Version+1, by, nil)
}

// Policy returns one policy.
func (r Reader) Policy(ctx context.Context, name string) (api.PolicyResource, error) {
	p, err := r.maybePolicy(ctx, name)
	if err == nil && p.Name == "" {
		err = fmt.Errorf("policy %s: %w", name, ErrNotFound)
	}
	return p, err
}

func (r Reader) maybePolicy(ctx context.Context, name string) (api.PolicyResource, error) {
	list, err := rows(ctx, r.q, "reading policy", scanPolicy,
		"SELECT name, version, etag, updated, by, resource FROM policy WHERE name = ?", name)
	if err != nil || len(list) == 0 {
		return api.PolicyResource{}, err
	}
	return list[0], nil
}

func scanPolicy(r *sql.Rows) (p api.PolicyResource, err error) {
	var at int64
	var resource []byte
	err = r.Scan(&p.Name, &p.Version, &p.ETag, &at, &p.By, &resource)
	p.Updated, p.Resource = time.Unix(0, at).UTC(), resource
	return p, err
}

// Policies returns all policies by name.
func (r Reader) Policies(ctx context.Context) ([]api.PolicyResource, error) {
	return rows(ctx, r.q, "listing policies", scanPolicy,
		"SELECT name, version, etag, updated, by, resource FROM policy ORDER BY name")
}

// PolicyHistory returns a policy's versions, newest first; a deletion has no
// resource.
func (r Reader) PolicyHistory(ctx context.Context, name string) ([]api.PolicyResource, error) {
	return rows(ctx, r.q, "listing policy history", func(r *sql.Rows) (p api.PolicyResource, err error) {
		var at int64
		var resource []byte
		err = r.Scan(&p.Name, &p.Version, &at, &p.By, &resource)
		p.Updated, p.Resource = time.Unix(0, at).UTC(), resource
		return p, err
	}, "SELECT name, version, updated, by, resource FROM policy_history WHERE name = ? ORDER BY version DESC LIMIT 1000", name)
}
