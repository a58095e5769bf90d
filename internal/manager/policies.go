package manager

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

// builtIn marks the default policy nobody wrote.
const builtIn = "built-in"

// defaultPolicy is the resource that applies where nothing else does.
func defaultPolicy() (api.PolicyResource, error) {
	b, err := json.Marshal(policy.Default())
	return api.PolicyResource{Name: policy.DefaultName, Resource: b, By: builtIn}, err
}

// policies returns the stored policies, and the default one unless it was
// replaced.
func policies(ctx context.Context, r store.Reader) ([]api.PolicyResource, error) {
	list, err := r.Policies(ctx)
	if err != nil {
		return nil, err
	}
	for _, p := range list {
		if p.Name == policy.DefaultName {
			return list, nil
		}
	}
	d, err := defaultPolicy()
	return append(list, d), err
}

func (m *Manager) listPolicies(ctx context.Context, _ *empty) (*answer[api.Page[api.PolicyResource]], error) {
	list, err := policies(ctx, m.store.Reader)
	return &answer[api.Page[api.PolicyResource]]{api.Page[api.PolicyResource]{Items: list}}, err
}

func (m *Manager) getPolicy(ctx context.Context, in *ByName) (*tagged[api.PolicyResource], error) {
	p, err := m.store.Policy(ctx, in.Name)
	if errors.Is(err, store.ErrNotFound) && in.Name == policy.DefaultName {
		p, err = defaultPolicy()
	}
	return &tagged[api.PolicyResource]{p.ETag, p}, err
}

func (m *Manager) policyHistory(ctx context.Context, in *ByName) (*answer[api.Page[api.PolicyResource]], error) {
	list, err := m.store.PolicyHistory(ctx, in.Name)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("policy %s: %w", in.Name, store.ErrNotFound)
	}
	return &answer[api.Page[api.PolicyResource]]{api.Page[api.PolicyResource]{Items: list}}, err
}

type policyIn struct {
	ByName
	IfMatch     string `header:"If-Match" doc:"ETag that was read; * for any existing policy"`
	IfNoneMatch string `header:"If-None-Match" enum:"*" doc:"* creates only"`
	RawBody     []byte `contentType:"application/yaml"`
}

// putPolicy creates or changes one policy, written in YAML or JSON.
func (m *Manager) putPolicy(ctx context.Context, in *policyIn) (*tagged[api.PolicyResource], error) {
	list, err := policy.Parse(bytes.NewReader(in.RawBody))
	if err != nil {
		return nil, invalid("%v", err)
	}
	if len(list) != 1 {
		return nil, invalid("send exactly one policy, not %d", len(list))
	}
	p := list[0]
	if p.Name() != in.Name {
		return nil, invalid("the resource is called %q, the path %q", p.Name(), in.Name)
	}
	resource, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding policy: %w", err)
	}
	var out api.PolicyResource
	err = m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		if err := p.ValidateApply(tx.Now); err != nil {
			return invalid("%v", err)
		}
		e.Target = "policy/" + in.Name
		before, err := tx.Policy(ctx, in.Name)
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		out, err = tx.PutPolicy(ctx, in.Name, resource, e.Actor, store.Match{ETag: in.IfMatch, None: in.IfNoneMatch == "*"})
		if err != nil {
			return err
		}
		e.Detail = detail(map[string]any{"before": before.ETag, "after": out.ETag, "version": out.Version})
		if err := tx.Emit(ctx, api.EventPolicy, "", out); err != nil {
			return err
		}
		return m.reconfigure(ctx, tx, e.Actor, "policy "+in.Name+" changed")
	})
	return &tagged[api.PolicyResource]{out.ETag, out}, err
}

type policyDeleteIn struct {
	ByName
	IfMatch string `header:"If-Match"`
}

func (m *Manager) deletePolicy(ctx context.Context, in *policyDeleteIn) (*struct{}, error) {
	return nil, m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target = "policy/" + in.Name
		if err := tx.DeletePolicy(ctx, in.Name, e.Actor, store.Match{ETag: in.IfMatch}); err != nil {
			return err
		}
		if err := tx.Emit(ctx, api.EventPolicy, "", map[string]any{"name": in.Name, "deleted": true}); err != nil {
			return err
		}
		return m.reconfigure(ctx, tx, e.Actor, "policy "+in.Name+" deleted")
	})
}

type explainIn struct {
	Workload string `query:"workload" doc:"id or name"`
	Finding  string `query:"finding" doc:"id"`
}

// explain says which policy a workload gets and why, by the same code the
// nodes run.
func (m *Manager) explain(ctx context.Context, in *explainIn) (*answer[api.PolicyExplanation], error) {
	if (in.Workload == "") == (in.Finding == "") {
		return nil, invalid("name either a workload or a finding")
	}
	w, err := m.subject(ctx, in)
	if err != nil {
		return nil, err
	}
	list, err := m.store.Policies(ctx)
	if err != nil {
		return nil, err
	}
	var all []policy.Policy
	for _, r := range list {
		var p policy.Policy
		if err := json.Unmarshal(r.Resource, &p); err != nil {
			return nil, fmt.Errorf("reading policy %s: %w", r.Name, err)
		}
		all = append(all, p)
	}
	p, why := policy.NewSet(all).For(w)
	resource, err := json.Marshal(p)
	if err != nil {
		return nil, fmt.Errorf("encoding policy: %w", err)
	}
	out := api.PolicyExplanation{Workload: w, Policy: why.Policy, Considered: []api.PolicyConsidered{}, Resource: resource}
	for _, c := range why.Considered {
		out.Considered = append(out.Considered, api.PolicyConsidered(c))
	}
	return &answer[api.PolicyExplanation]{out}, nil
}

func (m *Manager) subject(ctx context.Context, in *explainIn) (threat.Workload, error) {
	c := callOf(ctx)
	if in.Finding != "" {
		f, err := m.store.Finding(ctx, in.Finding)
		if err == nil && !c.sees(f.Workload.Tenant) {
			err = fmt.Errorf("finding %s: %w", in.Finding, store.ErrNotFound)
		}
		return f.Workload, err
	}
	list, err := m.workloads(ctx)
	if err != nil {
		return threat.Workload{}, err
	}
	for _, w := range list {
		if w.ID == in.Workload || w.Name == in.Workload {
			return w, nil
		}
	}
	return threat.Workload{}, fmt.Errorf("workload %s: %w", in.Workload, store.ErrNotFound)
}
