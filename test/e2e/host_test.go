//go:build privileged

package e2e

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestHost runs everything that needs the daemon on one stand. The order
// matters only for the last ones, which end and restart the daemon.
func TestHost(t *testing.T) {
	s := newStand(t)
	s.policies(t)
	for _, c := range []struct {
		name string
		test func(*testing.T, *stand)
	}{
		{"Denied", testDenied},
		{"LowerLayer", testLowerLayer},
		{"Entrypoint", testEntrypoint},
		{"BindMount", testBindMount},
		{"SharedMapping", testSharedMapping},
		{"Quarantine", testQuarantine},
		{"Restore", testRestore},
		{"Spread", testSpread},
		{"ActionsPerMinute", testActionsPerMinute},
		{"Monitor", testMonitor},
		{"Off", testOff},
		{"Exclusion", testExclusion},
		{"Kill", testKill},
		{"Explain", testExplain},
		{"ScanWithDaemon", testScanWithDaemon},
		{"ScanContainer", testScanContainer},
		{"BrokenRule", testBrokenRule},
		{"SignatureSwap", testSignatureSwap},
		{"Healthy", testHealthy},
		{"KilledWorker", testKilledWorker},
		{"KilledService", testKilledService},
		{"KilledSupervisor", testKilledSupervisor},
		{"Restart", testRestart},
	} {
		if !t.Run(c.name, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Logf("the daemon's log ends with:\n%s", s.tail(4000))
				}
			}()
			c.test(t, s)
		}) && s.daemon == nil {
			t.Fatal("the daemon is gone")
		}
	}
}

// policyText makes a policy for the containers with its label.
func policyText(name, spec string) string {
	return fmt.Sprintf("---\napiVersion: lazaret/v1\nkind: Policy\nmetadata: {name: %[1]s}\nspec:\n  selector: {matchLabels: {%[2]s: %[1]s}}\n%[3]s",
		name, labelName, spec)
}

// policies applies one policy per behaviour. The host's own programs are only
// denied: a scan by the daemon must leave the test's trees alone.
func (s *stand) policies(t *testing.T) {
	t.Helper()
	plenty := "  governor: {actionsPerMinute: 10000, maxWorkloads: 10000}\n"
	denyOnly := "  actions: {critical: [deny], high: [deny], medium: [deny], low: [allow]}\n"
	text := policyText("take", plenty) +
		policyText("deny", denyOnly+plenty) +
		policyText("kill", "  actions: {critical: [deny, kill], high: [deny, kill], medium: [deny], low: [allow]}\n"+plenty) +
		policyText("off", "  mode: \"off\"\n") +
		policyText("exclude", denyOnly+plenty+fmt.Sprintf(
			"  exclusions: [{paths: [/tmp/excluded/**], reason: our own samples, owner: security team, expires: %s}]\n",
			time.Now().Add(time.Hour).UTC().Format(time.RFC3339))) +
		policyText("spread", "  governor: {actionsPerMinute: 10000, maxWorkloads: 2}\n") +
		policyText("rate", "  governor: {actionsPerMinute: 3, maxWorkloads: 10000}\n") +
		"---\napiVersion: lazaret/v1\nkind: Policy\nmetadata: {name: host}\nspec:\n  selector: {kinds: [host]}\n" + denyOnly +
		policyText("monitor", "  mode: monitor\n"+plenty)
	file := write(t, filepath.Join(s.dir, "policies.yaml"), []byte(text))
	var applied []map[string]any
	require.NoError(t, s.ask(&applied, "policy", "apply", "-f", file))
	require.Len(t, applied, 9)
	// In force on the node when the last one is.
	c := s.container(t, imageClean, "monitor")
	s.within(t, 20*time.Second, "policies are in force", func() bool {
		require.Equal(t, "ok", act(t, c, "write:"+eicar(2), "/tmp/probe"))
		time.Sleep(200 * time.Millisecond) // unless it is in force, the file is taken
		return act(t, c, "open", "/tmp/probe") == "ok"
	})
}
