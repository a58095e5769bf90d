package ruleset

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

func TestMetadata(t *testing.T) {
	t.Parallel()
	m := NewMetadata("r")
	require.Equal(t, Metadata{Name: "r", Severity: threat.High}, m)
	m.Set("Description", "what it is")
	m.Set("desc", "ignored, the first counts")
	m.Set("author", "A\xffB")
	m.Set("reference", strings.Repeat("x", 600))
	m.Set("mitre_att", "see TA0001 and T1059.004")
	m.Set("licence", "MIT")
	m.Set("tlp", "white")
	m.Set("description", 7)
	require.Equal(t, Metadata{Name: "r", Severity: threat.High, Technique: "T1059.004", Description: "what it is",
		Author: "A�B", Reference: strings.Repeat("x", 512), License: "MIT"}, m)
}

func TestSeverity(t *testing.T) {
	t.Parallel()
	tests := []struct {
		key   string
		value any
		want  threat.Severity
	}{
		{"severity", "Critical", threat.Critical},
		{"severity", "low", threat.Low},
		{"severity", "awful", threat.High},
		{"severity", 100, threat.Critical},
		{"severity", "50", threat.Medium},
		{"score", 75, threat.High},
		{"score", 39, threat.Low},
		{"score", 0, threat.Informational},
		{"score", -5, threat.High},
		{"score", 1000, threat.High},
		{"score", true, threat.High},
		{"category", "INFO", threat.Informational},
		{"category", "MALWARE", threat.High},
	}
	for _, test := range tests {
		m := NewMetadata("r")
		m.Set(test.key, test.value)
		require.Equal(t, test.want, m.Severity, "%s = %v", test.key, test.value)
	}
}
