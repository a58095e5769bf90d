package ruleset

import (
	"regexp"
	"strconv"
	"strings"

	"github.com/lazaret/lazaret/internal/threat"
)

// Metadata is what a rule's meta section says about it, in our words.
type Metadata struct {
	Name        string          `json:"name"`
	Severity    threat.Severity `json:"severity"`
	Technique   string          `json:"technique,omitempty"`
	Description string          `json:"description,omitempty"`
	Author      string          `json:"author,omitempty"`
	Reference   string          `json:"reference,omitempty"`
	License     string          `json:"license,omitempty"`
}

// maxText bounds each text taken from a rule, in bytes.
const maxText = 512

var technique = regexp.MustCompile(`\bT[0-9]{4}(\.[0-9]{3})?\b`)

// NewMetadata starts the metadata of a rule without a meta section: a match of
// a rule that says nothing about its severity is taken seriously.
func NewMetadata(name string) Metadata {
	return Metadata{Name: name, Severity: threat.High}
}

// Set applies one entry of the meta section; unknown keys are ignored. Of
// several entries with the same meaning the first counts.
func (m *Metadata) Set(key string, v any) {
	text, isText := v.(string)
	text = clip(text)
	first := func(s *string) {
		if *s == "" {
			*s = text
		}
	}
	switch strings.ToLower(key) {
	case "description", "desc":
		first(&m.Description)
	case "author", "authors":
		first(&m.Author)
	case "reference", "ref", "url", "report", "link":
		first(&m.Reference)
	case "license", "licence":
		first(&m.License)
	case "technique", "mitre", "mitre_att", "mitre_attack", "attack", "att_ck":
		if t := technique.FindString(text); t != "" && m.Technique == "" {
			m.Technique = t
		}
	case "severity", "score":
		if isText {
			if s := threat.Severity(strings.ToLower(text)); s.Rank() > 0 {
				m.Severity = s
				return
			}
			n, err := strconv.Atoi(text)
			if err != nil {
				return
			}
			v = n
		}
		m.score(v)
	case "category":
		// bartblaze's convention for rules that describe, not accuse.
		if strings.EqualFold(text, "info") {
			m.Severity = threat.Informational
		}
	}
}

// score maps the 0-100 scale of THOR and Elastic rules.
func (m *Metadata) score(v any) {
	var n int64
	switch v := v.(type) {
	case int:
		n = int64(v)
	case int32:
		n = int64(v)
	case int64:
		n = v
	default:
		return
	}
	switch {
	case n < 0 || n > 100:
	case n >= 90:
		m.Severity = threat.Critical
	case n >= 70:
		m.Severity = threat.High
	case n >= 40:
		m.Severity = threat.Medium
	case n > 0:
		m.Severity = threat.Low
	default:
		m.Severity = threat.Informational
	}
}

func clip(s string) string {
	if len(s) > maxText {
		s = s[:maxText]
	}
	return strings.ToValidUTF8(s, "�")
}
