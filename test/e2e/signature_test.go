//go:build privileged

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

// testBrokenRule: a rule that does not compile is reported with file and line,
// and nothing is published.
func testBrokenRule(t *testing.T, s *stand) {
	before := s.epoch(t)
	file := write(t, filepath.Join(t.TempDir(), "broken.yar"),
		[]byte("rule Fine { strings: $a = \"fine enough\" condition: $a }\n\nrule Broken {\n  strings:\n    $a = \"xyz\"\n  condition: $missing }\n"))
	stdout, stderr, code := s.lazaret("signature", "import", "--dry-run", file)
	require.Equal(t, 2, code, "%s%s", stdout, stderr)
	require.Contains(t, stdout+stderr, "broken.yar:6")
	require.Equal(t, before, s.epoch(t))
}

func (s *stand) epoch(t *testing.T) threat.Epoch {
	t.Helper()
	var st api.Status
	require.NoError(t, s.ask(&st, "status"))
	return st.Epoch
}

func (s *stand) awaitEpoch(t *testing.T, e threat.Epoch) {
	t.Helper()
	s.within(t, 30*time.Second, fmt.Sprintf("bundle %d is active on the node", e), func() bool {
		var st api.Status
		return s.ask(&st, "status") == nil && len(st.Nodes) == 1 && st.Nodes[0].Report.Epoch == e
	})
}

// testSignatureSwap: while files are opened all the time a new bundle is
// published and rolled back. What was malicious is never allowed, what was
// clean and remembered is denied as soon as the new bundle is active, and
// allowed again after the roll-back.
func testSignatureSwap(t *testing.T, s *stand) {
	const marker = "lazaret-end-to-end-marker-2718281828"
	c := s.container(t, imageClean, "deny")
	require.Equal(t, "ok", act(t, c, "write:"+eicar(60), "/tmp/bad"))
	require.Equal(t, "ok", act(t, c, "write:a file with "+marker, "/tmp/marked"))
	time.Sleep(1200 * time.Millisecond) // old enough to be remembered by the kernel
	for range 3 {
		require.Equal(t, "ok", act(t, c, "open", "/tmp/marked"))
	}
	type outcome struct {
		text string
		err  error
	}
	opens := make(chan outcome, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		r, err := c.Exec(ctx, "/bin/actor", "for:12s", "/tmp/bad")
		opens <- outcome{strings.TrimSpace(r.Stdout), err}
	}()
	old := s.epoch(t)
	file := write(t, filepath.Join(t.TempDir(), "new.yar"), []byte(`rule New_Marker {
  meta: severity = "high" description = "marker of a test"
  strings: $a = "`+marker+`"
  condition: $a
}
`))
	var report api.ImportReport
	require.NoError(t, s.ask(&report, "signature", "import", file, "--comment", "test"))
	require.NotNil(t, report.Bundle, "%+v", report)
	require.Equal(t, "passed", report.SelfTest)
	require.Greater(t, report.Bundle.Epoch, old)
	s.awaitEpoch(t, report.Bundle.Epoch)
	require.Equal(t, "EPERM", act(t, c, "open", "/tmp/marked"), "the kernel has forgotten it")
	f := s.finding(t, c, "/tmp/marked", func(*threat.Finding) bool { return true })
	require.Equal(t, report.Bundle.Epoch, f.Epoch)

	var back api.Bundle
	require.NoError(t, s.ask(&back, "signature", "rollback", strconv.FormatUint(uint64(old), 10), "--reason", "test"))
	require.Equal(t, old, back.RollbackOf)
	require.Greater(t, back.Epoch, report.Bundle.Epoch)
	s.awaitEpoch(t, back.Epoch)
	require.Equal(t, "ok", act(t, c, "open", "/tmp/marked"))
	require.Equal(t, "EPERM", act(t, c, "open", "/tmp/bad"))

	o := <-opens
	require.NoError(t, o.err)
	var allowed, denied, kinds int
	var slowest string
	_, err := fmt.Sscanf(o.text, "ok=%d EPERM=%d kinds=%d slowest=%s", &allowed, &denied, &kinds, &slowest)
	require.NoError(t, err, o.text)
	require.Zero(t, allowed, "a malicious file was allowed during a swap: %s", o.text)
	require.Equal(t, 1, kinds, o.text)
	require.Greater(t, denied, 100, o.text)
	worst, err := time.ParseDuration(slowest)
	require.NoError(t, err)
	require.Less(t, worst, deadline, o.text)
}
