package api

import (
	"encoding/json"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// User is a person; Roles are platform, security, auditor, owner.
type User struct {
	Name    string    `json:"name"`
	Roles   []string  `json:"roles"`
	Tenants []string  `json:"tenants,omitempty"` // for owners
	Created time.Time `json:"created"`
}

// Token is an API token; Secret is set only in the answer to its creation.
type Token struct {
	ID      string    `json:"id"`
	Name    string    `json:"name"`
	User    string    `json:"user"`
	Expires time.Time `json:"expires"`
	Created time.Time `json:"created"`
	Secret  string    `json:"secret,omitempty"`
}

// PolicyResource is a policy as the manager keeps it.
type PolicyResource struct {
	Name     string          `json:"name"`
	Resource json.RawMessage `json:"resource"` // apiVersion, kind, metadata, spec
	ETag     string          `json:"etag"`     // also the ETag header
	Version  int64           `json:"version"`  // counts changes, from 1
	Updated  time.Time       `json:"updated"`
	By       string          `json:"by"`
}

// PolicyExplanation says which policy a workload got and why.
type PolicyExplanation struct {
	Workload threat.Workload `json:"workload"`
	Policy   string          `json:"policy"`
	// Considered lists every policy in the order of precedence.
	Considered []PolicyConsidered `json:"considered"`
	Resource   json.RawMessage    `json:"resource"` // the policy that applies
}

// PolicyConsidered is one policy that was looked at.
type PolicyConsidered struct {
	Policy      string `json:"policy"`
	Priority    int    `json:"priority"`
	Specificity int    `json:"specificity"` // number of conditions its selector sets
	Selected    bool   `json:"selected"`    // the selector matches
	Applies     bool   `json:"applies"`     // it is the one that applies
	Why         string `json:"why"`
}

// SetupRequest creates the first user; Token comes from the set-up link.
type SetupRequest struct {
	Token    string `json:"token"`
	Name     string `json:"name"`
	Password string `json:"password"`
}

// SetupLink is the one-time link to create the first user.
type SetupLink struct {
	URL   string `json:"url"`
	Token string `json:"token"`
}

// LoginRequest starts a session; the answer sets its cookie.
type LoginRequest struct {
	Name     string `json:"name"`
	Password string `json:"password"`
}

// Me is who the manager takes the caller for.
type Me struct {
	Actor   string   `json:"actor"` // user:NAME, node:NAME
	Roles   []string `json:"roles"`
	Tenants []string `json:"tenants,omitempty"`
}

// UserRequest creates or changes a user. An empty password or absent roles
// leave them as they are.
type UserRequest struct {
	Name     string   `json:"name"`
	Password string   `json:"password,omitempty"`
	Roles    []string `json:"roles,omitempty"`
	Tenants  []string `json:"tenants,omitempty"`
}

// PasswordRequest changes a password; Old is needed for one's own.
type PasswordRequest struct {
	Old string `json:"old,omitempty"`
	New string `json:"new"`
}

// TokenRequest creates an API token for the caller, who can do with it what
// the caller can do.
type TokenRequest struct {
	Name string `json:"name"`
	// For is how long the token is valid, such as "720h"; default 90 days, at
	// most a year.
	For string `json:"for,omitempty"`
}

// NodeToken is the answer to making a node's token.
type NodeToken struct {
	Node   string `json:"node"`
	Secret string `json:"secret"`
}
