package queue

import "sync"

// Urgency is the priority of work that several callers may wait for: it only
// rises, to that of the most urgent caller, and passes each rise on.
type Urgency struct {
	mu     sync.Mutex
	level  Priority
	follow func(Priority)
}

// NewUrgency starts at a priority.
func NewUrgency(p Priority) *Urgency { return &Urgency{level: p} }

// Level is the present priority.
func (u *Urgency) Level() Priority {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.level
}

// Raise lifts the priority to p if that is more urgent.
func (u *Urgency) Raise(p Priority) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if p <= u.level {
		return
	}
	u.level = p
	if u.follow != nil {
		u.follow(p)
	}
}

// Follow sets who is told of rises, at once of the present level; nil ends it.
// The function must not use the Urgency.
func (u *Urgency) Follow(f func(Priority)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.follow = f
	if f != nil {
		f(u.level)
	}
}
