package sarif

import (
	"encoding/json"
	"errors"
	"flag"
	"net/url"
	"os"
	"regexp"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

var update = flag.Bool("update", false, "rewrite golden files")

func example() *Log {
	l := New("1.2.3")
	eicar := threat.Detection{Signature: "Lazaret.Test.EICAR", Engine: "hash", Severity: threat.High}
	web := threat.Detection{Signature: "WebShell", Engine: "yara", Severity: threat.Medium, Technique: "T1505.003", Description: "A web shell", Author: "x", Reference: "https://example.org"}
	for _, o := range []api.ScanLine{
		{Path: "/srv/clean", Verdict: threat.Clean, Size: 1},
		{Path: "/srv/a b.zip!/evil:1.php", Verdict: threat.Malicious, Size: 7, SHA256: threat.Hash{1}, Detections: []threat.Detection{eicar, web}},
		{Path: "c:x/y", Verdict: threat.Suspicious, Detections: []threat.Detection{web}, Image: "shop:1", Layer: "sha256:12"},
		{Path: `/srv/\xff`, Verdict: threat.Partial, Reasons: []threat.Reason{{Code: threat.ReasonEncrypted, Text: "encrypted"}}},
		{Path: "/srv/gone", Verdict: threat.Error, Reasons: []threat.Reason{{Code: threat.ReasonUnreadable}}},
		{Path: "c:x/y", Verdict: threat.Suspicious, Detections: []threat.Detection{web}, Image: "shop:1", Layer: "sha256:13"},
		{Path: "/srv/info", Verdict: threat.Clean, Detections: []threat.Detection{{Signature: "Info", Severity: threat.Informational}}},
	} {
		l.Add(&o)
	}
	return l
}

func TestGolden(t *testing.T) {
	t.Parallel()
	l := example()
	l.Finish(&api.ScanSummary{Errors: 1})
	got, err := json.MarshalIndent(l, "", "  ")
	require.NoError(t, err)
	const golden = "testdata/example.sarif"
	if *update {
		require.NoError(t, os.WriteFile(golden, append(got, '\n'), 0o644))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.JSONEq(t, string(want), string(got))
}

// TestSpecification checks the rules of SARIF 2.1.0 (OASIS standard, 2020-03)
// that consumers rely on.
func TestSpecification(t *testing.T) {
	t.Parallel()
	for name, l := range map[string]*Log{"empty": New(""), "example": example()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "empty" {
				l.Fail(errors.New("the engine is not there"))
				require.False(t, l.Runs[0].Invocations[0].ExecutionSuccessful)
			}
			require.Equal(t, "2.1.0", l.Version) // 3.13.2
			require.Len(t, l.Runs, 1)
			run := l.Runs[0]
			require.NotEmpty(t, run.Tool.Driver.Name) // 3.19.8
			checkURI(t, run.Tool.Driver.InformationURI, true)
			require.NotNil(t, run.Results, "3.14.23: a scan that found nothing has an empty array")
			ids := map[string]bool{}
			for _, r := range run.Tool.Driver.Rules {
				require.NotEmpty(t, r.ID)
				require.False(t, ids[r.ID], "3.49.3: rule ids are unique")
				require.NotEmpty(t, r.ShortDescription.Text)
				ids[r.ID] = true
			}
			for _, r := range run.Results {
				require.Equal(t, r.RuleID, run.Tool.Driver.Rules[r.RuleIndex].ID)                                // 3.27.6
				require.True(t, slices.Contains([]string{"none", "note", "warning", "error"}, r.Level), r.Level) // 3.27.10
				require.NotEmpty(t, r.Message.Text)
				checkLocations(t, run, r.Locations, true)
			}
			for _, i := range run.Invocations {
				for _, n := range i.ToolExecutionNotifications {
					require.NotEmpty(t, n.Message.Text)
					require.NotEmpty(t, n.Descriptor.ID)
					checkLocations(t, run, n.Locations, false)
				}
			}
			unique := map[string]bool{}
			for _, a := range run.Artifacts {
				b, err := json.Marshal(a)
				require.NoError(t, err)
				require.False(t, unique[string(b)], "3.14.15: artifacts are unique")
				unique[string(b)] = true
				require.GreaterOrEqual(t, a.Length, int64(-1)) // 3.24.9
				for kind, digest := range a.Hashes {
					require.Equal(t, "sha-256", kind) // 3.24.11, IANA's name
					require.Regexp(t, regexp.MustCompile(`^[0-9a-f]{64}$`), digest)
				}
			}
		})
	}
}

func checkLocations(t *testing.T, run *Run, ls []Location, indexed bool) {
	t.Helper()
	for _, l := range ls {
		a := l.PhysicalLocation.ArtifactLocation
		checkURI(t, a.URI, false)
		require.Equal(t, indexed, a.Index != nil)
		if indexed {
			require.Equal(t, a.URI, run.Artifacts[*a.Index].Location.URI) // 3.4.5
		}
	}
}

// checkURI wants a reference of RFC 3986; relative ones must not have a scheme.
func checkURI(t *testing.T, s string, absolute bool) {
	t.Helper()
	u, err := url.Parse(s)
	require.NoError(t, err, s)
	require.Regexp(t, regexp.MustCompile(`^[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]+$`), s)
	if u.Scheme != "" {
		require.Contains(t, []string{"file", "https"}, u.Scheme, s)
	}
	require.True(t, !absolute || u.IsAbs(), s)
}
