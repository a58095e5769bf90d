// Package condition keeps what a user must know about the product's own state.
// The same codes and texts reach the command line, the API, the metrics and
// /readyz; health is the worst condition.
package condition

import (
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// Set holds the conditions that are true now. The zero value is empty and
// ready; it is safe for concurrent use.
type Set struct {
	mu sync.Mutex
	m  map[string]threat.Condition
}

// Raise makes a condition true; its Since stays that of the first time.
func (s *Set) Raise(c threat.Condition) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.m == nil {
		s.m = map[string]threat.Condition{}
	}
	if old, ok := s.m[c.Code]; ok {
		c.Since = old.Since
	} else if c.Since.IsZero() {
		c.Since = time.Now().UTC()
	}
	s.m[c.Code] = c
}

// Clear makes a condition false.
func (s *Set) Clear(code string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.m, code)
}

// List returns the conditions, most severe first, then by code.
func (s *Set) List() []threat.Condition {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]threat.Condition, 0, len(s.m))
	for _, c := range s.m {
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b threat.Condition) int {
		if d := b.Severity.Rank() - a.Severity.Rank(); d != 0 {
			return d
		}
		return strings.Compare(a.Code, b.Code)
	})
	return out
}
