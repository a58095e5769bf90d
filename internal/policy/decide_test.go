package policy

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

var (
	now  = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)
	hash = threat.Hash{1}
)

func detections(signatures ...string) []threat.Detection {
	severity := map[byte]threat.Severity{'H': threat.High, 'M': threat.Medium, 'L': threat.Low, 'I': threat.Informational}
	var out []threat.Detection
	for _, s := range signatures {
		out = append(out, threat.Detection{Signature: s, Severity: severity[s[0]]})
	}
	return out
}

func TestDecide(t *testing.T) {
	t.Parallel()
	exclude := func(e Exclusion) func(*Policy) {
		return func(p *Policy) {
			e.Reason, e.Owner = "known", "ann"
			if e.Expires.IsZero() {
				e.Expires = now.Add(time.Hour)
			}
			p.Spec.Exclusions = append(p.Spec.Exclusions, e)
		}
	}
	deny, quarantine, allow := threat.Deny, threat.Quarantine, threat.Allow
	malicious := Input{Verdict: threat.Malicious, Severity: threat.High, Hash: hash,
		Location: threat.Location{Path: "/opt/app/x"}, Detections: detections("H.one", "L.two")}
	for name, tt := range map[string]struct {
		change   func(*Policy)
		in       Input
		want     []threat.Action
		excluded bool
		denies   bool
	}{
		"clean":          {nil, Input{Verdict: threat.Clean}, []threat.Action{allow}, false, false},
		"high":           {nil, malicious, []threat.Action{deny, quarantine}, false, true},
		"medium":         {nil, Input{Verdict: threat.Suspicious, Severity: threat.Medium}, []threat.Action{deny}, false, true},
		"low":            {nil, Input{Verdict: threat.Suspicious, Severity: threat.Low}, []threat.Action{allow}, false, false},
		"informational":  {nil, Input{Verdict: threat.Suspicious, Severity: threat.Informational}, []threat.Action{allow}, false, false},
		"no severity":    {nil, Input{Verdict: threat.Suspicious}, []threat.Action{deny}, false, true},
		"off":            {func(p *Policy) { p.Spec.Mode = Off }, malicious, []threat.Action{allow}, false, false},
		"monitor":        {func(p *Policy) { p.Spec.Mode = Monitor }, malicious, []threat.Action{deny, quarantine}, false, false},
		"allowed":        {nil, Input{Verdict: threat.Malicious, Severity: threat.High, Allowed: true}, []threat.Action{allow}, false, false},
		"no actions":     {func(p *Policy) { p.Spec.Actions.High = nil }, malicious, []threat.Action{allow}, false, false},
		"partial":        {nil, Input{Verdict: threat.Partial}, []threat.Action{allow}, false, false},
		"partial deny":   {func(p *Policy) { p.Spec.Partial = ChooseDeny }, Input{Verdict: threat.Partial}, []threat.Action{deny}, false, true},
		"error":          {nil, Input{Verdict: threat.Error}, []threat.Action{allow}, false, false},
		"error closed":   {func(p *Policy) { p.Spec.FailMode = FailClosed }, Input{Verdict: threat.Error}, []threat.Action{deny}, false, true},
		"unknown closed": {func(p *Policy) { p.Spec.FailMode = FailClosed }, Input{}, []threat.Action{deny}, false, true},
		"path":           {exclude(Exclusion{Paths: []string{"/opt/**"}}), malicious, []threat.Action{allow}, true, false},
		"other path":     {exclude(Exclusion{Paths: []string{"/opt/*"}}), malicious, []threat.Action{deny, quarantine}, false, true},
		"hash":           {exclude(Exclusion{Hashes: []threat.Hash{hash}}), malicious, []threat.Action{allow}, true, false},
		"other hash":     {exclude(Exclusion{Hashes: []threat.Hash{{2}}}), malicious, []threat.Action{deny, quarantine}, false, true},
		"path and other hash": {exclude(Exclusion{Paths: []string{"/opt/**"}, Hashes: []threat.Hash{{2}}}), malicious,
			[]threat.Action{deny, quarantine}, false, true},
		"expired":                          {exclude(Exclusion{Paths: []string{"/opt/**"}, Expires: now}), malicious, []threat.Action{deny, quarantine}, false, true},
		"all signatures":                   {exclude(Exclusion{Signatures: []string{"H.*", "L.two"}}), malicious, []threat.Action{allow}, true, false},
		"one signature, the rest counts":   {exclude(Exclusion{Signatures: []string{"H.*"}}), malicious, []threat.Action{allow}, false, false},
		"less severe signature":            {exclude(Exclusion{Signatures: []string{"L.*"}}), malicious, []threat.Action{deny, quarantine}, false, true},
		"empty exclusion excludes nothing": {exclude(Exclusion{}), malicious, []threat.Action{deny, quarantine}, false, true},
		"two exclusions together": {func(p *Policy) {
			exclude(Exclusion{Signatures: []string{"H.*"}})(p)
			exclude(Exclusion{Signatures: []string{"L.*"}})(p)
		}, malicious, []threat.Action{allow}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := Default()
			if tt.change != nil {
				tt.change(&p)
			}
			in := tt.in
			in.Now = now
			d := Decide(p, in)
			require.Equal(t, tt.want, d.Actions)
			require.Equal(t, tt.excluded, d.Excluded != nil)
			require.Equal(t, tt.denies, d.Denies())
			require.Equal(t, p.Spec.Mode, d.Mode)
			require.NotEmpty(t, d.Why)
		})
	}
}

func TestMatchPath(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		pattern, path string
		want          bool
	}{
		{"/a", "/a", true},
		{"/a", "/ab", false},
		{"/a/*", "/a/b", true},
		{"/a/*", "/a/b/c", false},
		{"/a/**", "/a/b/c", true},
		{"/a/**", "/a", true},
		{"/a/**", "/ab", false},
		{"/**/x", "/x", true},
		{"/**/x", "/a/b/x", true},
		{"/**/x", "/a/b/xy", false},
		{"/**/a/**/b", "/a/c/a/b", true},
		{"/**/a/*/b", "/a/a/c/b", true},
		{"/a?c", "/aéc", true},
		{"/a?c", "/a/c", false},
		{"/*.jar", "/x.jar", true},
		{"/opt/**", "/opt/../etc/passwd", false},
		{"/opt/**", "opt/x", false},
		{"opt/**", "/opt/x", false},
		{"/opt/**", "/opt/..x", true},
		{"/opt/x.zip", "/opt/x.zip!/evil", false},
	} {
		require.Equal(t, tt.want, matchPath(tt.pattern, tt.path), "%s %s", tt.pattern, tt.path)
	}
}

func TestMatchersAreBounded(t *testing.T) {
	t.Parallel()
	start := time.Now()
	require.False(t, matchText(strings.Repeat("a*", 2000)+"b", strings.Repeat("a", 4000)))
	require.False(t, matchPath("/"+strings.Repeat("**/a/", 800)+"b", "/"+strings.Repeat("a/", 2000)+"c"))
	require.Less(t, time.Since(start), time.Second)
}

func BenchmarkForDecide(b *testing.B) {
	policies := []Policy{named("a", 1, Selector{MatchLabels: map[string]string{"app": "web"}})}
	set := NewSet(policies)
	w := threat.Workload{ID: "container/0123456789abcdef", Labels: map[string]string{"app": "web", "tier": "front", "x": "y"}}
	in := Input{Workload: w, Verdict: threat.Clean, Now: now}
	b.ReportAllocs()
	for b.Loop() {
		p, _ := set.For(w)
		if d := p.Decide(&in); d.Denies() {
			b.Fatal("denied")
		}
	}
}
