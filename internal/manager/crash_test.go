package manager

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/audit"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// crashDir tells the re-executed test binary to be a manager.
const crashDir = "LAZARET_TEST_MANAGER_DIR"

// TestCrashChild is the manager that TestKilledManager kills.
func TestCrashChild(t *testing.T) {
	dir := os.Getenv(crashDir)
	if dir == "" {
		return // an ordinary test run
	}
	m := newManager(t, filepath.Join(dir, "state"))
	m.Socket = filepath.Join(dir, "m.sock")
	token, err := m.NodeToken(t.Context(), "n1")
	require.NoError(t, err)
	go func() {
		bufio.NewReader(os.Stdin).ReadByte() // the parent is gone
		os.Exit(1)
	}()
	fmt.Printf("token %s\n", token)
	require.NoError(t, m.Run(t.Context()))
}

// startChild starts a manager process and returns a client of node n1.
func startChild(t *testing.T, dir string) (*exec.Cmd, *api.Client) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestCrashChild$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), crashDir+"="+dir)
	cmd.Stderr = os.Stderr
	_, err := cmd.StdinPipe() // closed when this process ends
	require.NoError(t, err)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)
	token, ok := strings.CutPrefix(strings.TrimSpace(line), "token ")
	require.True(t, ok, line)
	c, err := api.NewClient(api.ClientConfig{Socket: filepath.Join(dir, "m.sock"), Token: token})
	require.NoError(t, err)
	t.Cleanup(func() { c.Close() })
	return cmd, c
}

// TestKilledManager kills the manager with SIGKILL under load, again and
// again. Every acknowledged batch is there afterwards, whole; the audit log
// verifies and has each decision exactly once.
func TestKilledManager(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	var mu sync.Mutex
	acked := map[string]bool{}
	sent := 0
	for range 6 {
		cmd, c := startChild(t, dir)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for ctx.Err() == nil {
					mu.Lock()
					sent++
					id := fmt.Sprintf("%06d", sent)
					mu.Unlock()
					b := api.Batch{ID: id}
					for i := range 3 {
						f := testFinding(fmt.Sprintf("F%s-%d", id, i), "")
						b.Findings = append(b.Findings, f)
					}
					// A batch is repeated until acknowledged, as the node's link does;
					// here the process is gone then.
					if c.Post(ctx, "/api/v1/nodes/n1/batches", b, nil) == nil {
						mu.Lock()
						acked[id] = true
						mu.Unlock()
					}
				}
			})
		}
		time.Sleep(time.Duration(50+rand.IntN(200)) * time.Millisecond)
		require.NoError(t, cmd.Process.Kill())
		cmd.Wait()
		cancel()
		wg.Wait()
	}
	require.NotEmpty(t, acked)

	m := newManager(t, filepath.Join(dir, "state"))
	defer m.Close()
	stored := 0
	for id := range acked {
		for i := range 3 {
			_, err := m.store.Finding(t.Context(), fmt.Sprintf("F%s-%d", id, i))
			require.NoError(t, err, "acknowledged batch %s", id)
		}
	}
	cursor := ""
	for {
		list, next, err := m.store.Findings(t.Context(), store.FindingFilter{}, store.Page{After: cursor, Limit: 1000})
		require.NoError(t, err)
		stored += len(list)
		if cursor = next; next == "" {
			break
		}
	}
	require.Zero(t, stored%3, "no batch is there in part")

	rep, err := audit.Verify(filepath.Join(dir, "state", "audit"), audit.Options{})
	require.NoError(t, err)
	require.Empty(t, rep.Problems)
	log, err := os.ReadFile(filepath.Join(dir, "state", "audit", "entries.jsonl"))
	require.NoError(t, err)
	require.Equal(t, stored, strings.Count(string(log), `"action":"finding.decision"`))
	t.Logf("%d batches acknowledged, %d findings stored, %d audit entries", len(acked), stored, rep.Size)
}
