// Package limit is a set of token buckets by key, for things strangers can
// repeat: log-in attempts and denied calls.
package limit

import (
	"sync"
	"time"
)

// maxKeys bounds the memory an attacker with many addresses can use.
const maxKeys = 10000

// Limiter lets every key do Burst things at once and then one every Every. The
// zero value is not usable; see New. It is safe for concurrent use.
type Limiter struct {
	every time.Duration
	burst float64
	now   func() time.Time

	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

// New returns a limiter.
func New(burst int, every time.Duration) *Limiter {
	return &Limiter{every: every, burst: float64(burst), now: time.Now, buckets: map[string]bucket{}}
}

// Allow takes a token of the key. If there is none it returns how long to wait
// for one.
func (l *Limiter) Allow(key string) (ok bool, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	b, found := l.buckets[key]
	if !found {
		if len(l.buckets) >= maxKeys {
			l.sweep(now)
		}
		if len(l.buckets) >= maxKeys {
			return false, l.every // under attack from everywhere: only known keys go on
		}
		b = bucket{tokens: l.burst, at: now}
	}
	b = l.refill(b, now)
	if ok = b.tokens >= 1; ok {
		b.tokens--
	} else {
		wait = time.Duration((1 - b.tokens) * float64(l.every))
	}
	l.buckets[key] = b
	return ok, wait
}

// Reset forgets a key, after a success.
func (l *Limiter) Reset(key string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.buckets, key)
}

func (l *Limiter) refill(b bucket, now time.Time) bucket {
	b.tokens = min(l.burst, b.tokens+float64(now.Sub(b.at))/float64(l.every))
	b.at = now
	return b
}

// sweep forgets full buckets: they are as good as new.
func (l *Limiter) sweep(now time.Time) {
	for k, b := range l.buckets {
		if l.refill(b, now).tokens >= l.burst {
			delete(l.buckets, k)
		}
	}
}
