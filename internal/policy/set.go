package policy

import (
	"cmp"
	"maps"
	"slices"
	"sync"

	"github.com/lazaret/lazaret/internal/threat"
)

// cacheSize bounds the answers a Set remembers; a node has far fewer workloads.
const cacheSize = 4096

// Set is a set of policies of which exactly one applies to each workload. It
// does not change; a new set replaces it. It is safe for concurrent use.
type Set struct {
	policies []Policy // the order in which they are considered, default last
	mu       sync.RWMutex
	cache    map[string]answer
}

type answer struct {
	workload    threat.Workload
	policy      *Policy
	explanation Explanation
}

// Explanation says which policy a workload got and why.
type Explanation struct {
	Workload string `json:"workload"`
	Policy   string `json:"policy"`
	// Considered lists every policy of the set in the order of precedence.
	Considered []Consideration `json:"considered"`
}

// Consideration is one policy's part in an Explanation.
type Consideration struct {
	Policy   string `json:"policy"`
	Priority int    `json:"priority"`
	// Specificity is the number of conditions its selector sets.
	Specificity int    `json:"specificity"`
	Selected    bool   `json:"selected"` // the selector matches
	Applies     bool   `json:"applies"`  // it is the one that applies
	Why         string `json:"why"`
}

// NewSet orders the policies and adds the built-in default if none of them is
// called so. Of two policies with one name the later counts.
func NewSet(policies []Policy) *Set {
	byName := map[string]Policy{DefaultName: Default()}
	for _, p := range policies {
		byName[p.Name()] = p
	}
	s := &Set{cache: map[string]answer{}}
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		s.policies = append(s.policies, byName[name])
	}
	slices.SortStableFunc(s.policies, func(a, b Policy) int {
		if a.Name() == DefaultName || b.Name() == DefaultName {
			return cmp.Compare(boolRank(a.Name() == DefaultName), boolRank(b.Name() == DefaultName))
		}
		return cmp.Or(
			cmp.Compare(b.Spec.Priority, a.Spec.Priority),
			cmp.Compare(b.Spec.Selector.specificity(), a.Spec.Selector.specificity()),
			cmp.Compare(a.Name(), b.Name()),
		)
	})
	return s
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Policies returns the policies in the order of precedence, default last.
func (s *Set) Policies() []Policy { return slices.Clone(s.policies) }

// For returns the policy that applies to w and why. Answers are remembered by
// workload id as long as what selectors look at stays the same. The results
// share memory with the set: do not change them.
func (s *Set) For(w threat.Workload) (Policy, Explanation) {
	s.mu.RLock()
	a, ok := s.cache[w.ID]
	s.mu.RUnlock()
	if !ok || !sameWorkload(&a.workload, &w) {
		a = s.decide(&w)
		a.workload.Labels = maps.Clone(w.Labels) // the caller may change its own
		s.mu.Lock()
		if len(s.cache) >= cacheSize {
			clear(s.cache)
		}
		s.cache[w.ID] = a
		s.mu.Unlock()
	}
	return *a.policy, a.explanation
}

func sameWorkload(a, b *threat.Workload) bool {
	return a.Kind == b.Kind && a.Tenant == b.Tenant && a.Namespace == b.Namespace &&
		a.Image == b.Image && maps.Equal(a.Labels, b.Labels)
}

func (s *Set) decide(w *threat.Workload) answer {
	a := answer{workload: *w, explanation: Explanation{Workload: w.ID}}
	for i := range s.policies {
		p := &s.policies[i]
		c := Consideration{Policy: p.Name(), Priority: p.Spec.Priority, Specificity: p.Spec.Selector.specificity()}
		if p.Name() == DefaultName {
			c.Selected, c.Why = true, "covers every workload that no other policy selects"
		} else {
			c.Selected, c.Why = p.Spec.Selector.match(w)
		}
		switch {
		case c.Selected && a.policy == nil:
			c.Applies = true
			a.policy, a.explanation.Policy = p, p.Name()
		case c.Selected:
			c.Why += "; " + a.explanation.Policy + " takes precedence"
		}
		a.explanation.Considered = append(a.explanation.Considered, c)
	}
	return a
}
