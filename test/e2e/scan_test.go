//go:build privileged

package e2e

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

// scanned is the parsed output of lazaret scan -o jsonl.
type scanned struct {
	lines   []api.ScanLine
	summary api.ScanSummary
}

func (s *stand) scan(t *testing.T, want int, args ...string) scanned {
	t.Helper()
	stdout, stderr, code := s.lazaret(append([]string{"scan", "-o", "jsonl"}, args...)...)
	require.Equal(t, want, code, "%s\n%s", stdout, stderr)
	var out scanned
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	for i, text := range lines {
		var l api.ScanLine
		require.NoError(t, json.Unmarshal([]byte(text), &l), text)
		if i == len(lines)-1 {
			require.Equal(t, "summary", l.Kind)
			require.NotNil(t, l.Summary)
			out.summary = *l.Summary
			continue
		}
		require.Equal(t, "object", l.Kind)
		out.lines = append(out.lines, l)
	}
	return out
}

// malicious returns the paths of what was found, sorted.
func (r *scanned) malicious() []string {
	var out []string
	for _, l := range r.lines {
		if l.Verdict == threat.Malicious && len(l.Detections) > 0 {
			out = append(out, l.Path)
		}
	}
	slices.Sort(out)
	return out
}

// checkScans is what a user can do without knowing whether a daemon runs.
func (s *stand) checkScans(t *testing.T, n int, flags ...string) {
	with := func(args ...string) []string { return append(slices.Clone(flags), args...) }
	bad := eicar(n)
	dir := infectedTree(t, bad)
	r := s.scan(t, 1, with(dir)...)
	found := r.malicious()
	require.Len(t, found, 3, "%+v", r.lines)
	require.Equal(t, filepath.Join(dir, "a.zip")+"!/in/eicar.com", found[0])
	require.Regexp(t, "^"+filepath.Join(dir, "outer.tar.zst")+"!/[^!]+!/middle.7z!/inner.zip!/eicar.com$", found[1])
	require.Equal(t, filepath.Join(dir, "plain.com"), found[2])
	require.EqualValues(t, 4, r.summary.Files)
	require.EqualValues(t, 3, r.summary.Malicious)

	image := infectedImage(t, bad)
	r = s.scan(t, 1, with("--image", image)...)
	require.Len(t, r.malicious(), 1, "%+v", r.lines)
	require.True(t, strings.HasSuffix(r.malicious()[0], "opt/eicar.com"), r.malicious()[0])

	clean := t.TempDir()
	write(t, filepath.Join(clean, "a"), []byte("alpha\n"))
	write(t, filepath.Join(clean, "b.zip"), zipped(t, "beta", "beta\n"))
	r = s.scan(t, 0, with(clean)...)
	require.Empty(t, r.malicious())
	require.EqualValues(t, 2, r.summary.Clean)

	locked := encryptedZip(t)
	r = s.scan(t, 3, with(locked)...)
	require.EqualValues(t, 1, r.summary.Partial)
	reasons := ""
	for _, l := range r.lines {
		for _, x := range l.Reasons {
			require.NotEqual(t, threat.Clean, l.Verdict)
			reasons += x.Code + " "
		}
	}
	require.Contains(t, reasons, threat.ReasonEncrypted)

	_, stderr, code := s.lazaret(append([]string{"scan"}, with(filepath.Join(clean, "missing"))...)...)
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "missing")
}

// TestScanWithoutDaemon: the command starts the engine itself.
func TestScanWithoutDaemon(t *testing.T) {
	s := &stand{dir: t.TempDir()}
	write(t, filepath.Join(s.dir, "lazaret.yaml"), []byte("stateDir: "+s.dir+"/state\nrunDir: "+s.dir+"/run\n"))
	s.checkScans(t, 50)
	require.NoDirExists(t, filepath.Join(s.dir, "state"))
}

// testScanWithDaemon: the same through the daemon, whose findings appear.
func testScanWithDaemon(t *testing.T, s *stand) {
	s.checkScans(t, 51)
	s.within(t, 5e9, "finding of the scan", func() bool {
		return slices.ContainsFunc(s.findings(t), func(f threat.Finding) bool {
			return f.Trigger == "scan" && strings.HasSuffix(f.Location.Path, "plain.com") && f.Workload.Kind == threat.KindHost
		})
	})
	s.checkScans(t, 52, "--no-daemon")
}

// testScanContainer: the files of a running container, with their paths in it.
func testScanContainer(t *testing.T, s *stand) {
	c := s.container(t, imageBad, "deny")
	require.Equal(t, "ok", act(t, c, "write:"+eicar(53), "/tmp/inside"))
	r := s.scan(t, 1, "--container", c.ID)
	for _, path := range []string{"/opt/lower", "/tmp/inside"} {
		require.Contains(t, r.malicious(), path)
	}
	for _, l := range r.lines {
		require.Equal(t, "container/"+c.ID, l.Workload, l.Path)
	}
	require.Zero(t, r.summary.Errors)
	f := s.finding(t, c, "/opt/lower", func(*threat.Finding) bool { return true })
	require.Equal(t, "scan", f.Trigger)
	_, stderr, code := s.lazaret("scan", "--container", "nobody")
	require.Equal(t, 2, code)
	require.Contains(t, stderr, "nobody")
}
