//go:build privileged

package signature

import (
	"context"
	"log/slog"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/worker"
	"github.com/lazaret/lazaret/internal/signature/builtin"
	"github.com/lazaret/lazaret/internal/threat"
)

// The whole way with the real engine: the built-in bundle is compiled in the
// sandbox, passes its self-test on the samples and on this host's own
// programs, is published, fetched, compiled again, and detects.
func TestRealEngine(t *testing.T) {
	program := filepath.Join(t.TempDir(), "lazaret-engine")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, "github.com/lazaret/lazaret/cmd/lazaret-engine").CombinedOutput()
	require.NoError(t, err, string(out))
	inspect := func(_ context.Context, dir string, epoch threat.Epoch) (Inspection, error) {
		return worker.New(worker.Config{Program: program, Bundle: dir, Epoch: epoch, Processes: 1})
	}
	r := openTest(t, t.TempDir(), nil)
	i := NewImporter(ImporterConfig{
		Repository: r, Compiler: Sandboxed{Program: program}, Inspect: inspect, Corpus: DefaultCorpus(), TempDir: t.TempDir(),
	})
	require.Greater(t, len(i.c.Corpus.Good), 10)
	report, err := i.Builtin(t.Context())
	require.NoError(t, err)
	require.Equal(t, "passed", report.SelfTest)
	require.Empty(t, report.Errors)
	require.GreaterOrEqual(t, report.Rules, 12)

	report, err = i.Import(t.Context(), Import{By: "user:test", Files: tree("own.yar", `
rule Broken { strings: $a = "abc condition: $a }
`, "wide.yar", `
rule Too_Wide { condition: uint32(0) == 0x464C457F }
`)})
	require.NoError(t, err)
	require.Nil(t, report.Bundle)
	require.Contains(t, report.SelfTest, "failed: Too_Wide matches the known-good file /")
	require.NotEmpty(t, report.Errors)
	require.Equal(t, "own.yar", report.Errors[0].File)
	require.Positive(t, report.Errors[0].Line)

	c := clientFor(t, t.TempDir(), serve(t, r), nil)
	_, _, err = c.Update(t.Context())
	require.NoError(t, err)
	b, err := c.Bundle()
	require.NoError(t, err)
	s, err := OpenStore(t.TempDir(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	compiled, errs, err := s.Compile(t.Context(), b, Sandboxed{Program: program})
	require.NoError(t, err)
	require.Empty(t, errs)
	pool, err := inspect(t.Context(), compiled.Dir, compiled.Epoch)
	require.NoError(t, err)
	defer func() { require.NoError(t, pool.Close()) }()
	f, err := memoryFile("eicar", builtin.EICAR())
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	result, err := pool.Inspect(t.Context(), f, engine.Limits{})
	require.NoError(t, err)
	require.Equal(t, threat.Malicious, result.Verdict())
	require.Equal(t, compiled.Epoch, result.Epoch)
	require.NoError(t, s.Activate(compiled))
	require.NoError(t, SelfTest(t.Context(), pool, DefaultCorpus()))
}
