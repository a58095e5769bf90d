package authz

import "maps"

// Columns of the table that occur often.
var (
	// staff also reads the status: it counts records of all tenants, so owners
	// do not.
	callers     = map[Role]Scope{Platform: All, Security: All, Auditor: All, Owner: All, Node: All, Local: All}
	staff       = map[Role]Scope{Platform: All, Security: All, Auditor: All, Local: All}
	scoped      = map[Role]Scope{Platform: All, Security: All, Auditor: All, Owner: Tenant, Local: All}
	platform    = map[Role]Scope{Platform: All, Local: All}
	security    = map[Role]Scope{Security: All, Local: All}
	operators   = map[Role]Scope{Platform: All, Security: All, Local: All}
	auditor     = map[Role]Scope{Auditor: All, Local: All}
	own         = map[Role]Scope{Platform: Self, Security: Self, Auditor: Self, Owner: Self}
	local       = map[Role]Scope{Local: All}
	node        = map[Role]Scope{Node: Self, Local: All}
	withNodes   = with(staff, Node, All)
	userReaders = map[Role]Scope{Platform: All, Auditor: All, Local: All}
)

func with(m map[Role]Scope, r Role, s Scope) map[Role]Scope {
	out := maps.Clone(m)
	out[r] = s
	return out
}

// rules is the authorization of the product. OpenAPI takes names and titles
// from here too.
var rules = []Rule{
	// The service itself.
	{Method: "GET", Path: "/healthz", Action: "health", Title: "Whether the manager runs", Public: true, Audit: Reads},
	{Method: "GET", Path: "/readyz", Action: "ready", Title: "Whether the manager can serve, with conditions", Public: true, Audit: Reads},
	{Method: "GET", Path: "/version", Action: "version", Title: "Version of the manager", Public: true, Audit: Reads},
	{Method: "GET", Path: "/metrics", Action: "metrics", Title: "Metrics in Prometheus text format", PublicLocal: true, Grants: withNodes, Audit: Reads},
	{Method: "GET", Path: "/setup", Action: "setup.page", Title: "Page behind the set-up link", Public: true, Audit: Reads},
	{Method: "GET", Path: "/api/v1/openapi.json", Action: "openapi", Title: "This document", Public: true, Audit: Reads},
	{Method: "GET", Path: "/api/v1/status", Action: "status", Title: "Health, conditions, nodes and counts", Grants: staff, Audit: Reads},
	{Method: "GET", Path: "/api/v1/events", Action: "events", Title: "Stream of changes (SSE)", Grants: scoped, Audit: Reads},

	// Who is calling.
	{Method: "POST", Path: "/api/v1/setup", Action: "setup", Title: "Create the first user with the set-up link's token", Public: true, Audit: Changes},
	{Method: "POST", Path: "/api/v1/setup-link", Action: "setup.link", Title: "Make a new one-time set-up link", Grants: local, Audit: Changes},
	{Method: "POST", Path: "/api/v1/sessions", Action: "login", Title: "Log in", Public: true, Audit: Changes},
	{Method: "DELETE", Path: "/api/v1/sessions/current", Action: "logout", Title: "Log out", Grants: own, Audit: Changes},
	{Method: "GET", Path: "/api/v1/me", Action: "me", Title: "Who the manager takes the caller for", Grants: callers, Audit: Reads},
	{Method: "PUT", Path: "/api/v1/me/password", Action: "me.password", Title: "Change the own password", Grants: own, Audit: Changes},
	{Method: "GET", Path: "/api/v1/tokens", Action: "tokens.list", Title: "List the own API tokens", Grants: own, Audit: Reads},
	{Method: "POST", Path: "/api/v1/tokens", Action: "tokens.create", Title: "Create an API token", Grants: own, Audit: Changes},
	{Method: "DELETE", Path: "/api/v1/tokens/{id}", Action: "tokens.delete", Title: "Delete an API token", Grants: own, Audit: Changes},
	{Method: "GET", Path: "/api/v1/users", Action: "users.list", Title: "List users", Grants: userReaders, Audit: Reads},
	{Method: "POST", Path: "/api/v1/users", Action: "users.create", Title: "Create a user", Grants: platform, Audit: Changes},
	{Method: "PUT", Path: "/api/v1/users/{name}", Action: "users.update", Title: "Change a user's roles, tenants or password", Grants: platform, Audit: Changes},
	{Method: "DELETE", Path: "/api/v1/users/{name}", Action: "users.delete", Title: "Delete a user", Grants: platform, Audit: Changes},
	{Method: "GET", Path: "/api/v1/users/{name}/tokens", Action: "users.tokens.list", Title: "List a user's API tokens", Grants: userReaders, Audit: Reads},
	{Method: "POST", Path: "/api/v1/users/{name}/tokens", Action: "users.tokens.create", Title: "Create an API token for a user, as root on this machine", Grants: local, Audit: Changes},
	{Method: "DELETE", Path: "/api/v1/users/{name}/tokens/{id}", Action: "users.tokens.delete", Title: "Delete a user's API token", Grants: platform, Audit: Changes},

	// Findings and quarantine.
	{Method: "GET", Path: "/api/v1/findings", Action: "findings.list", Title: "List findings", Grants: scoped, Audit: Reads},
	{Method: "GET", Path: "/api/v1/findings/{id}", Action: "findings.get", Title: "Show a finding", Grants: scoped, Audit: Reads},
	{Method: "POST", Path: "/api/v1/findings/{id}/decisions", Action: "findings.decide", Title: "Decide on a finding", Grants: security, Audit: Changes},
	{Method: "GET", Path: "/api/v1/quarantine", Action: "quarantine.list", Title: "List quarantine items", Grants: scoped, Audit: Reads},
	{Method: "GET", Path: "/api/v1/quarantine/{id}", Action: "quarantine.get", Title: "Show a quarantine item", Grants: scoped, Audit: Reads},
	{Method: "POST", Path: "/api/v1/quarantine/{id}/restore", Action: "quarantine.restore", Title: "Put a file back", Grants: security, Audit: Changes},
	{Method: "POST", Path: "/api/v1/quarantine/{id}/purge", Action: "quarantine.purge", Title: "Delete a quarantine item for good", Grants: security, Audit: Changes},
	{Method: "POST", Path: "/api/v1/quarantine/{id}/export", Action: "quarantine.export", Title: "Download an item as password-protected archive", Grants: security, Audit: Changes},
	{Method: "GET", Path: "/api/v1/allowed", Action: "allowed.list", Title: "List objects people declared harmless", Grants: staff, Audit: Reads},
	{Method: "DELETE", Path: "/api/v1/allowed/{sha256}", Action: "allowed.delete", Title: "Withdraw an object's permission", Grants: security, Audit: Changes},
	{Method: "GET", Path: "/api/v1/commands/{id}", Action: "commands.get", Title: "Show what became of a command", Grants: staff, Audit: Reads},

	// Policies and workloads.
	{Method: "GET", Path: "/api/v1/policies", Action: "policies.list", Title: "List policies", Grants: staff, Audit: Reads},
	{Method: "GET", Path: "/api/v1/policies/{name}", Action: "policies.get", Title: "Show a policy", Grants: staff, Audit: Reads},
	{Method: "GET", Path: "/api/v1/policies/{name}/history", Action: "policies.history", Title: "List a policy's versions", Grants: staff, Audit: Reads},
	{Method: "PUT", Path: "/api/v1/policies/{name}", Action: "policies.put", Title: "Create or change a policy", Grants: platform, Audit: Changes},
	{Method: "DELETE", Path: "/api/v1/policies/{name}", Action: "policies.delete", Title: "Delete a policy", Grants: platform, Audit: Changes},
	{Method: "GET", Path: "/api/v1/explanation", Action: "policies.explain", Title: "Which policy a workload or finding got, and why", Grants: scoped, Audit: Reads},
	{Method: "GET", Path: "/api/v1/workloads", Action: "workloads.list", Title: "List workloads", Grants: scoped, Audit: Reads},

	// Nodes and scans.
	{Method: "GET", Path: "/api/v1/nodes", Action: "nodes.list", Title: "List nodes", Grants: staff, Audit: Reads},
	{Method: "GET", Path: "/api/v1/nodes/{node}", Action: "nodes.get", Title: "Show a node", Grants: staff, Audit: Reads},
	{Method: "DELETE", Path: "/api/v1/nodes/{node}", Action: "nodes.delete", Title: "Forget a node", Grants: platform, Audit: Changes},
	{Method: "POST", Path: "/api/v1/nodes/{node}/tokens", Action: "nodes.tokens.create", Title: "Make a node's token; the one before becomes invalid", Grants: platform, Audit: Changes},
	{Method: "GET", Path: "/api/v1/scans", Action: "scans.list", Title: "List scans", Grants: staff, Audit: Reads},
	{Method: "POST", Path: "/api/v1/scans", Action: "scans.create", Title: "Start a scan", Grants: operators, Audit: Changes},
	{Method: "GET", Path: "/api/v1/scans/{id}", Action: "scans.get", Title: "Show a scan", Grants: staff, Audit: Reads},
	{Method: "POST", Path: "/api/v1/scans/{id}/cancel", Action: "scans.cancel", Title: "Cancel a scan", Grants: operators, Audit: Changes},

	// Signatures.
	{Method: "GET", Path: "/api/v1/signatures", Action: "signatures.list", Title: "List bundles", Grants: staff, Audit: Reads},
	{Method: "POST", Path: "/api/v1/signatures/import", Action: "signatures.import", Title: "Import rules and hash lists (tar of sources)", Grants: security, Audit: Changes},
	{Method: "POST", Path: "/api/v1/signatures/rollback", Action: "signatures.rollback", Title: "Publish an older bundle's content again", Grants: security, Audit: Changes},
	{Method: "GET", Path: "/api/v1/signatures/tuf/{path...}", Action: "signatures.fetch", Title: "Files of the TUF repository", Grants: withNodes, Audit: Reads},

	// Audit log.
	{Method: "GET", Path: "/api/v1/audit/entries", Action: "audit.list", Title: "List audit entries, newest first", Grants: auditor, Audit: Reads},
	{Method: "GET", Path: "/api/v1/audit/checkpoint", Action: "audit.checkpoint", Title: "Newest signed tree head", Grants: auditor, Audit: Reads},
	{Method: "GET", Path: "/api/v1/audit/entries/{index}/proof", Action: "audit.proof", Title: "Proof that an entry is in the log", Grants: auditor, Audit: Reads},
	{Method: "GET", Path: "/api/v1/audit/export", Action: "audit.export", Title: "The whole log as a stream that can be verified offline", Grants: auditor, Audit: Reads},

	// What nodes call.
	{Method: "POST", Path: "/api/v1/nodes/{node}/report", Action: "node.report", Title: "Report a node's state", Grants: node, Audit: Machine},
	{Method: "POST", Path: "/api/v1/nodes/{node}/batches", Action: "node.batch", Title: "Upload findings, quarantine items and results", Grants: node, Audit: Machine},
	{Method: "GET", Path: "/api/v1/nodes/{node}/commands", Action: "node.commands", Title: "Stream of commands (SSE)", Grants: node, Audit: Reads},
	{Method: "GET", Path: "/api/v1/nodes/{node}/config", Action: "node.config", Title: "Policies, epoch and allowed objects", Grants: node, Audit: Reads},
	{Method: "PUT", Path: "/api/v1/nodes/{node}/uploads/{id}", Action: "node.upload", Title: "Content a person waits for", Grants: node, Audit: Machine},
}
