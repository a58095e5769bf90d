package manager

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// Prefixes of secrets, so that scanners of source trees can find leaked ones.
const (
	userPrefix  = "lzt_"
	nodePrefix  = "lzn_"
	setupPrefix = "lzs_"
)

// setupSetting holds the hash of the set-up link's token.
const setupSetting = "setup_hash"

// newSecret returns 256 random bits behind a prefix.
func newSecret(prefix string) string {
	b := make([]byte, 32)
	rand.Read(b) //nolint:errcheck // never fails, see its documentation
	return prefix + base64.RawURLEncoding.EncodeToString(b)
}

// FirstSetup returns the set-up link if nobody has an account yet, empty
// otherwise. Only the token's hash is stored: every call makes a new link and
// the one before becomes invalid.
func (m *Manager) FirstSetup(ctx context.Context) (api.SetupLink, error) {
	users, err := m.store.Users(ctx)
	if err != nil || len(users) > 0 {
		return api.SetupLink{}, err
	}
	return m.newSetup(ctx, func(tx *store.Tx) error {
		return tx.Audit(ctx, api.AuditEntry{Actor: "system", Action: "setup.link", Decision: "allowed", Reason: "first start"})
	})
}

func (m *Manager) newSetup(ctx context.Context, also func(*store.Tx) error) (api.SetupLink, error) {
	token := newSecret(setupPrefix)
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		if err := tx.Set(ctx, setupSetting, hexHash(token)); err != nil {
			return err
		}
		return also(tx)
	})
	if err != nil {
		return api.SetupLink{}, fmt.Errorf("making set-up link: %w", err)
	}
	return api.SetupLink{URL: m.baseURL() + "/setup#" + token, Token: token}, nil
}

// baseURL is where a browser on this machine finds the manager.
func (m *Manager) baseURL() string {
	scheme := "http://"
	if m.TLSCert != "" {
		scheme = "https://"
	}
	if m.Listen == "" {
		return "unix:" + m.Socket
	}
	return scheme + m.Listen
}

// NodeToken makes the token by which a node proves who it is; an earlier token
// of the node becomes invalid.
func (m *Manager) NodeToken(ctx context.Context, node string) (string, error) {
	var secret string
	err := m.store.Update(ctx, func(tx *store.Tx) (err error) {
		if secret, err = addNodeToken(ctx, tx, node); err != nil {
			return err
		}
		return tx.Audit(ctx, api.AuditEntry{Actor: "system", Action: "nodes.tokens.create", Target: "node/" + node, Decision: "allowed"})
	})
	if err != nil {
		return "", fmt.Errorf("making token of node %s: %w", node, err)
	}
	return secret, nil
}

func addNodeToken(ctx context.Context, tx *store.Tx, node string) (string, error) {
	if err := checkName("node", node); err != nil {
		return "", err
	}
	if err := tx.DeleteTokens(ctx, store.TokenNode, node); err != nil {
		return "", err
	}
	secret := newSecret(nodePrefix)
	return secret, tx.AddToken(ctx, store.TokenRecord{
		Kind:  store.TokenNode,
		Token: api.Token{ID: store.NewID(), Name: node, User: node, Expires: tx.Now.Add(10 * 365 * 24 * time.Hour)},
	}, hash(secret))
}

// checkName bounds the names people and nodes choose.
func checkName(what, name string) error {
	const allowed = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.@"
	if name == "" || len(name) > 253 || strings.Trim(name, allowed) != "" || strings.HasPrefix(name, ".") {
		return invalid("the %s's name must have 1 to 253 letters, digits, or any of -_.@", what)
	}
	return nil
}

var errSetupUsed = errors.New("the set-up link was used already or a newer one was made: run `lazaret setup-link` as root")
