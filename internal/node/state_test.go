package node

import (
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/node/guard"
	"github.com/lazaret/lazaret/internal/node/spool"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

// newNode returns a node with what its configuration needs.
func newNode(t *testing.T, dir string) *Node {
	t.Helper()
	s, err := spool.Open(t.Context(), dir)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return &Node{
		cfg:   Config{Logger: slog.New(slog.DiscardHandler), Conditions: &condition.Set{}},
		guard: guard.New(guard.Config{}), spool: s, signatures: &signatures{wake: make(chan struct{}, 1)},
	}
}

func resource(t *testing.T, name string) json.RawMessage {
	t.Helper()
	p := policy.Default()
	p.Metadata.Name = name
	p.Spec.Selector.Kinds = []threat.Kind{threat.KindContainer}
	b, err := json.Marshal(p)
	require.NoError(t, err)
	return b
}

func (n *Node) policyOf(t *testing.T) string {
	t.Helper()
	p, _ := n.guard.Policies().For(threat.Workload{ID: "container/c", Kind: threat.KindContainer})
	return p.Name()
}

// TestConfigure: a configuration is in force as a whole or not at all, and is
// in force again after a restart without the manager.
func TestConfigure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	n := newNode(t, dir)
	require.Equal(t, policy.DefaultName, n.policyOf(t))
	good := api.NodeConfig{
		Policies: []json.RawMessage{resource(t, "web")},
		Allowed:  []api.AllowedObject{{Hash: threat.Hash{1}, Expires: time.Now().Add(time.Hour)}},
	}
	require.NoError(t, n.configure(t.Context(), good))
	require.Equal(t, "web", n.policyOf(t))
	require.True(t, n.guard.Allowed(threat.Hash{1}))
	require.Len(t, n.signatures.wake, 1, "there may be a new bundle too")

	for name, bad := range map[string]json.RawMessage{
		"no JSON": json.RawMessage(`{`), "unknown key": json.RawMessage(`{"apiVersion":"lazaret/v1","kind":"Policy","metadata":{"name":"x"},"spec":{"mood":"bad"}}`),
	} {
		require.Error(t, n.configure(t.Context(), api.NodeConfig{
			Policies: []json.RawMessage{resource(t, "other"), bad},
			Allowed:  []api.AllowedObject{{Hash: threat.Hash{2}, Expires: time.Now().Add(time.Hour)}},
		}), name)
		require.Equal(t, "web", n.policyOf(t), name)
		require.True(t, n.guard.Allowed(threat.Hash{1}), name)
		require.False(t, n.guard.Allowed(threat.Hash{2}), name)
	}
	require.NoError(t, n.spool.Close())

	again := newNode(t, dir)
	again.restoreConfig(t.Context())
	require.Equal(t, "web", again.policyOf(t))
	require.True(t, again.guard.Allowed(threat.Hash{1}))
	require.NoError(t, again.configure(t.Context(), api.NodeConfig{}))
	require.Equal(t, policy.DefaultName, again.policyOf(t))
	require.False(t, again.guard.Allowed(threat.Hash{1}), "withdrawn")
}

// TestRestoreConfigDamaged: what cannot be read leaves the default in force.
func TestRestoreConfigDamaged(t *testing.T) {
	t.Parallel()
	n := newNode(t, t.TempDir())
	n.restoreConfig(t.Context())
	require.Equal(t, policy.DefaultName, n.policyOf(t))
	for _, text := range []string{"{", `{"policies":[{"kind":"Nothing"}]}`} {
		require.NoError(t, n.spool.SetSetting(t.Context(), configKey, []byte(text)))
		n.restoreConfig(t.Context())
		require.Equal(t, policy.DefaultName, n.policyOf(t))
	}
}

func TestSocket(t *testing.T) {
	t.Parallel()
	require.Empty(t, socket("off", "/usual"))
	require.Equal(t, "/x", socket("/x", "/usual"))
}
