package scan

import (
	"sync"
)

// window is how many files a scan may be ahead of the oldest one unfinished,
// and windowObjects how many objects may wait for it.
const (
	window        = 2048
	windowObjects = 100_000
)

// sequence lets files finish in any order and emits them in the order of the
// walk, so that results are the same in every run and a position says exactly
// what is done.
type sequence struct {
	emit func(*outcome) error

	mu      sync.Mutex
	room    sync.Cond
	ring    [window]outcome
	issued  uint64 // numbers given out
	emitted uint64 // numbers emitted, all below it are done
	objects int    // waiting in the ring
	err     error
}

func newSequence(emit func(*outcome) error) *sequence {
	s := &sequence{emit: emit}
	s.room.L = &s.mu
	return s
}

// issue gives the next number, waiting while too much is unfinished.
func (s *sequence) issue() (uint64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.err == nil && (s.issued-s.emitted >= window || s.objects > windowObjects && s.issued > s.emitted) {
		s.room.Wait()
	}
	if s.err != nil {
		return 0, s.err
	}
	s.issued++
	return s.issued - 1, nil
}

// finish hands in the outcome of a number and emits what is complete. Emitting
// happens under the lock: one at a time, and a slow receiver slows the scan.
func (s *sequence) finish(number uint64, o outcome) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	o.ready = true
	s.ring[number%window] = o
	s.objects += len(o.report.Objects)
	for s.emitted < s.issued && s.ring[s.emitted%window].ready {
		next := &s.ring[s.emitted%window]
		s.objects -= len(next.report.Objects)
		err := s.emit(next)
		*next = outcome{}
		s.emitted++
		if err != nil {
			s.stop(err)
			return err
		}
	}
	s.room.Broadcast()
	return nil
}

// with runs f between two emissions.
func (s *sequence) with(f func() error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	err := f()
	if err != nil {
		s.stop(err)
	}
	return err
}

// fail ends the sequence: nothing is emitted any more.
func (s *sequence) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stop(err)
}

func (s *sequence) stop(err error) {
	if s.err == nil {
		s.err = err
	}
	s.room.Broadcast()
}
