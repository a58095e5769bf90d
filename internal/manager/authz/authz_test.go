package authz

import (
	"encoding/json"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestTable freezes who may call what: a change of the table is a change of
// testdata/table.json that a person reviews.
func TestTable(t *testing.T) {
	t.Parallel()
	got := map[string]map[Role]Scope{}
	for _, r := range Rules() {
		row := map[Role]Scope{}
		for _, role := range []Role{Platform, Security, Auditor, Owner, Node, Local} {
			d := r.Decide(Principal{Name: "x:y", Roles: []Role{role}, Tenants: []string{"t"}, Node: "n"}, "n")
			if d.Allowed {
				row[role] = d.Scope
			}
		}
		if r.Decide(Principal{}, "").Allowed {
			row["anybody"] = All
		}
		got[r.Method+" "+r.Path] = row
	}
	b, err := json.MarshalIndent(got, "", "  ")
	require.NoError(t, err)
	const golden = "testdata/table.json"
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(golden, append(b, '\n'), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), string(b)+"\n", "run go test ./internal/manager/authz -update and review")
}

func TestTableIsSound(t *testing.T) {
	t.Parallel()
	actions, patterns := map[string]bool{}, map[string]bool{}
	for _, r := range Rules() {
		name := r.Method + " " + r.Path
		require.False(t, actions[r.Action], r.Action)
		require.False(t, patterns[name], name)
		actions[r.Action], patterns[name] = true, true
		require.NotEmpty(t, r.Title, name)
		require.NotEmpty(t, r.Audit, name)
		require.True(t, r.Public || len(r.Grants) > 0, "%s: nobody may call it", name)
		changes := r.Method != "GET"
		require.Equal(t, changes, r.Audit != Reads, "%s: changing calls are audited, reading ones only when denied", name)
		if scope, ok := r.Grants[Auditor]; ok && changes {
			require.Equal(t, Self, scope, "%s: auditors change only what is their own", name)
		}
		for role, scope := range r.Grants {
			if role == Owner && scope == All {
				require.Equal(t, "GET", r.Method, name)
				require.NotContains(t, name, "finding", name)
			}
		}
	}
	// Separation of duties: nobody's single role both sets policies and decides.
	policies, decisions := find(t, "policies.put"), find(t, "findings.decide")
	for _, role := range Grantable {
		_, a := policies.Grants[role]
		_, b := decisions.Grants[role]
		require.False(t, a && b, role)
	}
}

func find(t *testing.T, action string) Rule {
	t.Helper()
	for _, r := range Rules() {
		if r.Action == action {
			return r
		}
	}
	t.Fatal(action)
	return Rule{}
}

func TestDecide(t *testing.T) {
	t.Parallel()
	node := Rule{Action: "a", Grants: map[Role]Scope{Node: Self, Local: All}}
	list := Rule{Action: "l", Grants: map[Role]Scope{Owner: Tenant, Security: All}}
	for name, c := range map[string]struct {
		rule  Rule
		p     Principal
		node  string
		scope Scope // empty: denied
	}{
		"stranger":             {list, Principal{}, "", ""},
		"stranger with roles":  {list, Principal{Roles: []Role{Security}}, "", ""},
		"no grant":             {list, Principal{Name: "user:a", Roles: []Role{Auditor}}, "", ""},
		"no roles":             {list, Principal{Name: "user:a"}, "", ""},
		"owner":                {list, Principal{Name: "user:a", Roles: []Role{Owner}, Tenants: []string{"t"}}, "", Tenant},
		"owner of nothing":     {list, Principal{Name: "user:a", Roles: []Role{Owner}}, "", ""},
		"the wider scope":      {list, Principal{Name: "user:a", Roles: []Role{Owner, Security}, Tenants: []string{"t"}}, "", All},
		"the wider, reversed":  {list, Principal{Name: "user:a", Roles: []Role{Security, Owner}, Tenants: []string{"t"}}, "", All},
		"node itself":          {node, Principal{Name: "node:n", Roles: []Role{Node}, Node: "n"}, "n", Self},
		"node for another":     {node, Principal{Name: "node:n", Roles: []Role{Node}, Node: "n"}, "m", ""},
		"root for a node":      {node, Principal{Name: "user:root", Roles: []Role{Local}}, "m", All},
		"made-up role":         {list, Principal{Name: "user:a", Roles: []Role{"god"}}, "", ""},
		"public":               {Rule{Public: true}, Principal{}, "", All},
		"local only, local":    {Rule{PublicLocal: true}, Principal{Local: true}, "", All},
		"local only, far away": {Rule{PublicLocal: true}, Principal{}, "", ""},
	} {
		d := c.rule.Decide(c.p, c.node)
		require.Equal(t, c.scope != "", d.Allowed, name)
		require.Equal(t, c.scope, d.Scope, name)
		require.Equal(t, !d.Allowed, d.Reason != "", name)
	}
	table := NewTable()
	_, ok := table.Find("GET /api/v1/nothing")
	require.False(t, ok)
	r, ok := table.Find("GET /api/v1/findings")
	require.True(t, ok)
	require.Equal(t, "findings.list", r.Action)
	require.Equal(t, "anna", Principal{Name: "user:anna"}.User())
	require.Empty(t, Principal{Name: "node:n"}.User())
	require.True(t, strings.HasPrefix(r.Path, "/api/v1/"))
}
