package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lazaret/lazaret/internal/threat"
)

// Selector selects workloads. Every key that is given must match, one entry of
// a list is enough; the empty selector selects every workload.
type Selector struct {
	Kinds      []threat.Kind `yaml:"kinds,omitempty"`
	Tenants    []string      `yaml:"tenants,omitempty"`
	Namespaces []string      `yaml:"namespaces,omitempty"`
	// Images are patterns over image names; * spans everything.
	Images           []string          `yaml:"images,omitempty"`
	MatchLabels      map[string]string `yaml:"matchLabels,omitempty"`
	MatchExpressions []Expression      `yaml:"matchExpressions,omitempty"`
}

// Expression is a requirement on a label, with the meaning of Kubernetes'
// LabelSelectorRequirement: NotIn and DoesNotExist also match workloads that
// lack the label.
type Expression struct {
	Key      string   `yaml:"key"`
	Operator Operator `yaml:"operator"`
	Values   []string `yaml:"values,omitempty"`
}

// Operator of an Expression.
type Operator string

// The operators.
const (
	In           Operator = "In"
	NotIn        Operator = "NotIn"
	Exists       Operator = "Exists"
	DoesNotExist Operator = "DoesNotExist"
)

// specificity counts the conditions a selector sets.
func (s *Selector) specificity() int {
	n := len(s.MatchLabels) + len(s.MatchExpressions)
	for _, l := range []int{len(s.Kinds), len(s.Tenants), len(s.Namespaces), len(s.Images)} {
		if l > 0 {
			n++
		}
	}
	return n
}

// match reports whether w is selected and why, or the first condition that
// kept it from being selected.
func (s *Selector) match(w *threat.Workload) (bool, string) {
	if s.specificity() == 0 {
		return true, "selects every workload"
	}
	if len(s.Kinds) > 0 && !slices.Contains(s.Kinds, w.Kind) {
		return false, fmt.Sprintf("kind %q is not among %v", w.Kind, s.Kinds)
	}
	if len(s.Tenants) > 0 && !slices.Contains(s.Tenants, w.Tenant) {
		return false, fmt.Sprintf("tenant %q is not among %v", w.Tenant, s.Tenants)
	}
	if len(s.Namespaces) > 0 && !slices.Contains(s.Namespaces, w.Namespace) {
		return false, fmt.Sprintf("namespace %q is not among %v", w.Namespace, s.Namespaces)
	}
	image := func(pattern string) bool { return matchText(pattern, w.Image) }
	if len(s.Images) > 0 && !slices.ContainsFunc(s.Images, image) {
		return false, fmt.Sprintf("image %q matches none of %v", w.Image, s.Images)
	}
	for _, key := range slices.Sorted(maps.Keys(s.MatchLabels)) {
		if got, ok := w.Labels[key]; !ok || got != s.MatchLabels[key] {
			return false, fmt.Sprintf("label %s is %s, not %q", key, describe(got, ok), s.MatchLabels[key])
		}
	}
	for i := range s.MatchExpressions {
		e := &s.MatchExpressions[i]
		if got, ok := w.Labels[e.Key]; !e.match(got, ok) {
			return false, fmt.Sprintf("label %s is %s, which fails %s", e.Key, describe(got, ok), e)
		}
	}
	return true, fmt.Sprintf("all %d conditions of the selector match", s.specificity())
}

func describe(value string, present bool) string {
	if !present {
		return "absent"
	}
	return fmt.Sprintf("%q", value)
}

func (e *Expression) match(value string, present bool) bool {
	switch e.Operator {
	case In:
		return present && slices.Contains(e.Values, value)
	case NotIn:
		return !present || !slices.Contains(e.Values, value)
	case Exists:
		return present
	case DoesNotExist:
		return !present
	}
	return false // unknown operators select nothing; Validate refuses them
}

// String returns the expression in words.
func (e *Expression) String() string {
	if len(e.Values) == 0 {
		return string(e.Operator)
	}
	return fmt.Sprintf("%s (%s)", e.Operator, strings.Join(e.Values, ", "))
}
