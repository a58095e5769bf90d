package manager

import (
	"reflect"
)

func typeOf[T any]() reflect.Type { return reflect.TypeFor[T]() }

// empty is the input of routes without parameters.
type empty struct{}

// answer is an output with a JSON body.
type answer[T any] struct{ Body T }

// tagged is an answer with an ETag.
type tagged[T any] struct {
	ETag string `header:"ETag"`
	Body T
}

// ByID is the input of routes that name one record.
type ByID struct {
	ID string `path:"id" maxLength:"100"`
}

// Paging are the parameters of every list.
type Paging struct {
	PageToken string `query:"page_token" maxLength:"400" doc:"next_page_token of the page before"`
	Limit     int    `query:"limit" minimum:"1" maximum:"1000" default:"100" doc:"most items in the answer"`
}

const (
	maxBatch  = 32 << 20
	maxReport = 16 << 20
	maxImport = 1 << 30
	maxUpload = 16 << 30
)

// routes registers every row of the authorization table.
func (m *Manager) routes(w *web) {
	// service.go
	route(w, "health", m.health, answers("text/plain", "ok"))
	route(w, "ready", m.ready)
	route(w, "version", m.version)
	route(w, "metrics", m.scrape, answers("text/plain", "metrics"))
	route(w, "setup.page", m.setupPage, answers("text/html", "page"))
	route(w, "openapi", m.openAPI, answers("application/json", "OpenAPI 3.1"))
	route(w, "status", m.status)
	route(w, "events", m.events, answers("text/event-stream", "events"))

	// people.go, users.go
	route(w, "setup", m.setup, status(201))
	route(w, "setup.link", m.setupLink, status(201))
	route(w, "login", m.login, status(201))
	route(w, "logout", m.logout)
	route(w, "me", m.me)
	route(w, "me.password", m.changePassword)
	route(w, "tokens.list", m.listTokens)
	route(w, "tokens.create", m.createToken, status(201))
	route(w, "tokens.delete", m.deleteToken)
	route(w, "users.list", m.listUsers)
	route(w, "users.create", m.createUser, status(201))
	route(w, "users.update", m.updateUser)
	route(w, "users.delete", m.deleteUser)
	route(w, "users.tokens.list", m.listUserTokens)
	route(w, "users.tokens.create", m.createUserToken, status(201))
	route(w, "users.tokens.delete", m.deleteUserToken)

	// findings.go, quarantine.go, export.go
	route(w, "findings.list", m.listFindings)
	route(w, "findings.get", m.getFinding)
	route(w, "findings.decide", m.decide)
	route(w, "quarantine.list", m.listItems)
	route(w, "quarantine.get", m.getItem)
	route(w, "quarantine.restore", m.restore, status(202))
	route(w, "quarantine.purge", m.purge, status(202))
	route(w, "quarantine.export", m.export, answers("application/zip", "password-protected archive"))
	route(w, "allowed.list", m.listAllowed)
	route(w, "allowed.delete", m.deleteAllowed)
	route(w, "commands.get", m.getCommand)

	// policies.go, workloads.go
	route(w, "policies.list", m.listPolicies)
	route(w, "policies.get", m.getPolicy)
	route(w, "policies.history", m.policyHistory)
	route(w, "policies.put", m.putPolicy)
	route(w, "policies.delete", m.deletePolicy)
	route(w, "policies.explain", m.explain)
	route(w, "workloads.list", m.listWorkloads)

	// nodes.go, scans.go
	route(w, "nodes.list", m.listNodes)
	route(w, "nodes.get", m.getNode)
	route(w, "nodes.delete", m.deleteNode)
	route(w, "nodes.tokens.create", m.createNodeToken, status(201))
	route(w, "scans.list", m.listScans)
	route(w, "scans.create", m.createScan, status(202))
	route(w, "scans.get", m.getScan)
	route(w, "scans.cancel", m.cancelScan, status(202))

	// signatures.go
	route(w, "signatures.list", m.listBundles)
	route(w, "signatures.import", m.importSignatures, maxBody(maxImport), body("application/x-tar", "sources as a tar archive of regular files"),
		answers("application/json", "ImportReport"))
	route(w, "signatures.rollback", m.rollback)
	route(w, "signatures.fetch", m.fetchSignatures, answers("application/octet-stream", "file"))

	// auditlog.go
	route(w, "audit.list", m.listAudit)
	route(w, "audit.checkpoint", m.checkpoint)
	route(w, "audit.proof", m.prove)
	route(w, "audit.export", m.exportAudit, answers("application/x-ndjson", "entries, an empty line, the checkpoint"))

	// nodeside.go, commands.go
	route(w, "node.report", m.report, maxBody(maxReport), lenient)
	route(w, "node.batch", m.batch, maxBody(maxBatch), lenient)
	route(w, "node.commands", m.commands, answers("text/event-stream", "commands"))
	route(w, "node.config", m.nodeConfig)
	route(w, "node.upload", m.upload, maxBody(maxUpload), body("application/octet-stream", "content"), status(204))
}
