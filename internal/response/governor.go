package response

import (
	"fmt"
	"sync"
	"time"

	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

// Spread tells in how many workloads an object was seen; the content index of
// the scan service does.
type Spread interface {
	Workloads(object threat.Hash) (int, error)
}

// Governor holds automatic actions back when there are too many of them: a bad
// signature must not empty a fleet. It never holds back a denial, and never
// what a person decided.
type Governor struct {
	spread Spread
	now    func() time.Time

	mu      sync.Mutex
	buckets map[string]*bucket // by policy
}

// bucket is a token bucket: it holds up to a minute's actions and fills up
// evenly.
type bucket struct {
	tokens float64
	filled time.Time
}

// maxBuckets bounds the policies that are remembered.
const maxBuckets = 10_000

// NewGovernor returns a governor with full buckets. spread may be nil; now is
// the clock, nil for time.Now.
func NewGovernor(spread Spread, now func() time.Time) *Governor {
	if now == nil {
		now = time.Now
	}
	return &Governor{spread: spread, now: now, buckets: map[string]*bucket{}}
}

// Admit reports whether an automatic action on an object may be carried out
// now; if not, why says what a person needs to know.
func (g *Governor) Admit(name string, limits policy.Governor, object threat.Hash) (ok bool, why string) {
	if g.spread != nil && !object.IsZero() {
		n, err := g.spread.Workloads(object)
		if err != nil {
			return false, "in how many workloads the object is present is not known: " + err.Error()
		}
		if n >= limits.MaxWorkloads {
			return false, fmt.Sprintf("the object is present in %d workloads, policy %s lets actions wait from %d on", n, name, limits.MaxWorkloads)
		}
	}
	if !g.take(name, limits.ActionsPerMinute) {
		return false, fmt.Sprintf("policy %s permits %d automatic actions a minute on a node, and there were more", name, limits.ActionsPerMinute)
	}
	return true, ""
}

func (g *Governor) take(name string, perMinute int) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.now()
	b := g.buckets[name]
	if b == nil {
		if len(g.buckets) >= maxBuckets {
			return false
		}
		b = &bucket{tokens: float64(perMinute), filled: now}
		g.buckets[name] = b
	}
	if d := now.Sub(b.filled); d > 0 {
		b.tokens = min(float64(perMinute), b.tokens+d.Minutes()*float64(perMinute))
		b.filled = now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}
