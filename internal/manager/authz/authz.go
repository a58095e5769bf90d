// Package authz answers who may call which route. The whole policy is one
// table (table.go): route, name, roles with their scope, and what is audited.
// A route that is not in the table does not exist; a role that is not in its
// row is denied.
package authz

import (
	"slices"
)

// Role is what a caller is trusted with.
type Role string

// The roles. People hold the first four; separation of duties is that no row
// of the table gives platform the power over findings, or auditor any power.
const (
	Platform Role = "platform" // nodes, policies, scans, users
	Security Role = "security" // findings, decisions, quarantine, signatures
	Auditor  Role = "auditor"  // reads everything, also the audit log
	Owner    Role = "owner"    // reads what belongs to the own tenants
	Node     Role = "node"     // a node service, for itself
	Local    Role = "local"    // root on this machine, by peer credentials
)

// Grantable are the roles a user can be given.
var Grantable = []Role{Platform, Security, Auditor, Owner}

// Scope limits a grant.
type Scope string

// The scopes.
const (
	All    Scope = "all"
	Tenant Scope = "tenant" // only records of workloads of the caller's tenants
	Self   Scope = "self"   // only the caller's own: a node's routes, a user's tokens
)

// Audit says which calls of a route are written to the audit log.
type Audit string

// Denied calls are always audited.
const (
	Reads   Audit = "denied"  // reading: only denied calls
	Changes Audit = "changes" // every call, with its outcome
	// Machine routes are called every few seconds; what they change is audited
	// by record (a decision, a result), not by call.
	Machine Audit = "machine"
)

// Rule is one row of the table.
type Rule struct {
	Method string
	Path   string // pattern of net/http.ServeMux
	Action string // name in audit log and OpenAPI
	Title  string // one line for people
	Grants map[Role]Scope
	// Public routes need no identity. PublicLocal ones need none on the unix
	// socket and from loopback addresses.
	Public, PublicLocal bool
	Audit               Audit
}

// Principal is an authenticated caller.
type Principal struct {
	Name    string // "user:NAME", "node:NAME"
	Roles   []Role
	Tenants []string
	Node    string // for nodes: its name
	Local   bool   // on the unix socket or from a loopback address
	From    string // address, for the audit log
	Session string // id of the session, if a cookie was used
}

// Known reports whether somebody stands behind the principal.
func (p Principal) Known() bool { return p.Name != "" }

// User is the name of the person, empty for nodes.
func (p Principal) User() string {
	if len(p.Name) > 5 && p.Name[:5] == "user:" {
		return p.Name[5:]
	}
	return ""
}

// Decision of the table.
type Decision struct {
	Allowed bool
	Scope   Scope
	Reason  string // why it was denied
}

// Decide says whether p may call the rule's route; node is the node named in
// the path, empty if there is none. The widest scope of p's roles counts.
func (r Rule) Decide(p Principal, node string) Decision {
	if r.Public || (r.PublicLocal && p.Local) {
		return Decision{Allowed: true, Scope: All}
	}
	if !p.Known() {
		return Decision{Reason: "not authenticated"}
	}
	best := Decision{Reason: "no role of " + p.Name + " allows " + r.Action}
	for _, role := range p.Roles {
		scope, ok := r.Grants[role]
		if !ok {
			continue
		}
		if role == Node && scope == Self && node != "" && node != p.Node {
			best.Reason = p.Name + " speaks for itself only"
			continue
		}
		if role == Owner && scope == Tenant && len(p.Tenants) == 0 {
			best.Reason = p.Name + " has no tenant"
			continue
		}
		if !best.Allowed || wider(scope, best.Scope) {
			best = Decision{Allowed: true, Scope: scope}
		}
	}
	return best
}

func wider(a, b Scope) bool {
	order := []Scope{Self, Tenant, All}
	return slices.Index(order, a) > slices.Index(order, b)
}

// Table finds rules by the pattern the router matched.
type Table struct{ rules map[string]Rule }

// NewTable returns the product's table.
func NewTable() *Table {
	t := &Table{rules: make(map[string]Rule, len(rules))}
	for _, r := range rules {
		t.rules[r.Method+" "+r.Path] = r
	}
	return t
}

// Find returns the rule of a pattern such as "GET /api/v1/findings".
func (t *Table) Find(pattern string) (Rule, bool) {
	r, ok := t.rules[pattern]
	return r, ok
}

// Rules returns all rows in the table's order.
func Rules() []Rule { return slices.Clone(rules) }
