package queue

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

func TestOrder(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, err := New(Config{Slots: 1})
		require.NoError(t, err)
		ctx := context.Background()
		release, err := q.Acquire(ctx, NewUrgency(Scheduled))
		require.NoError(t, err)
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		start := func(name string, u *Urgency) {
			wg.Go(func() {
				release, err := q.Acquire(ctx, u)
				if err != nil {
					return
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				release()
			})
			synctest.Wait()
		}
		raised := NewUrgency(Scheduled)
		start("scheduled 1", NewUrgency(Scheduled))
		start("raised", raised)
		start("demand 1", NewUrgency(OnDemand))
		start("demand 2", NewUrgency(OnDemand))
		start("access", NewUrgency(OnAccess))
		require.Equal(t, 2, q.Waiting(Scheduled))
		raised.Raise(OnDemand)
		raised.Raise(OnAccess)
		raised.Raise(Scheduled) // never falls
		require.Equal(t, 2, q.Waiting(OnAccess))
		release()
		release() // harmless
		wg.Wait()
		require.Equal(t, []string{"access", "raised", "demand 1", "demand 2", "scheduled 1"}, order)
	})
}

func TestReserve(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, err := New(Config{Slots: 2, Reserve: 1})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		first, err := q.Acquire(ctx, NewUrgency(OnDemand))
		require.NoError(t, err)
		errs := make(chan error, 1)
		go func() {
			_, err := q.Acquire(ctx, NewUrgency(OnDemand))
			errs <- err
		}()
		synctest.Wait()
		require.Equal(t, 1, q.Waiting(OnDemand), "the free slot is not for it")
		access, err := q.Acquire(context.Background(), NewUrgency(OnAccess))
		require.NoError(t, err)
		cancel()
		require.ErrorIs(t, <-errs, context.Canceled)
		require.Zero(t, q.Waiting(OnDemand))
		access()
		first()
		last, err := q.Acquire(context.Background(), NewUrgency(Scheduled))
		require.NoError(t, err)
		last()
	})
}

func TestFull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q, err := New(Config{Slots: 1, Waiting: 1})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		_, err = q.Acquire(ctx, NewUrgency(OnDemand))
		require.NoError(t, err)
		go q.Acquire(ctx, NewUrgency(OnDemand))
		synctest.Wait()
		_, err = q.Acquire(ctx, NewUrgency(OnDemand))
		require.ErrorIs(t, err, ErrFull)
		cancel()
	})
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for _, c := range []Config{{}, {Slots: 1, Reserve: 1}, {Slots: 2, Reserve: -1}} {
		_, err := New(c)
		require.Error(t, err)
	}
	for s, want := range map[string]Priority{"": OnDemand, "on-demand": OnDemand, "scheduled": Scheduled} {
		p, err := ParsePriority(s)
		require.NoError(t, err)
		require.Equal(t, want, p)
	}
	_, err := ParsePriority("on-access")
	require.Error(t, err)
	require.Equal(t, "on-access", OnAccess.String())
}

func BenchmarkAcquire(b *testing.B) {
	q, err := New(Config{Slots: 1})
	require.NoError(b, err)
	u := NewUrgency(OnAccess)
	b.ReportAllocs()
	for b.Loop() {
		release, err := q.Acquire(context.Background(), u)
		if err != nil {
			b.Fatal(err)
		}
		release()
	}
}
