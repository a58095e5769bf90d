package manager

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/threat"
)

var errEnough = errors.New("enough")

// collect reads n events as somebody, after an id.
func (b *testBench) collect(who, path, after string, n int, o ...api.Option) []api.Event {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	defer cancel()
	var out []api.Event
	err := b.as(who).Stream(ctx, path, after, func(ev api.Event) error {
		if out = append(out, ev); len(out) == n {
			return errEnough
		}
		return nil
	}, o...)
	require.ErrorIs(b.t, err, errEnough)
	return out
}

func TestEvents(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.upload("01A", testFinding("F1", "blue"), testFinding("F2", "red"))
	all := b.collect("anna", "/api/v1/events", "0", 2)
	require.Equal(t, api.EventFinding, all[0].Name)
	var f threat.Finding
	require.NoError(t, json.Unmarshal(all[0].Data, &f))
	require.Equal(t, "F1", f.ID)

	again := b.collect("anna", "/api/v1/events", all[0].ID, 1)
	require.Equal(t, all[1], again[0], "resumed after the first")

	// Without an id the stream begins now. The stream before must have ended, or
	// it is taken for this one.
	require.Eventually(t, func() bool { return b.open.Load() == 0 }, 5*time.Second, time.Millisecond)
	got := make(chan []api.Event)
	go func() { got <- b.collect("anna", "/api/v1/events", "", 1) }()
	require.Eventually(t, func() bool { return b.open.Load() == 1 }, 5*time.Second, time.Millisecond)
	b.upload("01B", testFinding("F3", "blue"))
	require.NoError(t, json.Unmarshal((<-got)[0].Data, &f))
	require.Equal(t, "F3", f.ID)

	// An owner sees events of the own tenants only.
	own := b.collect("olga", "/api/v1/events", "0", 2)
	for _, ev := range own {
		require.NoError(t, json.Unmarshal(ev.Data, &f))
		require.Equal(t, "blue", f.Workload.Tenant)
	}

	// Filter by name.
	require.NoError(t, b.as("n1").Post(t.Context(), "/api/v1/nodes/n1/report", api.Report{Conditions: []threat.Condition{{Code: "x"}}}, nil))
	only := b.collect("anna", "/api/v1/events", "0", 1, api.Query("name", api.EventConditions))
	require.Equal(t, api.EventConditions, only[0].Name)
	require.Contains(t, string(only[0].Data), `"code":"x"`)

	// An id of a database that is gone.
	reset := b.collect("anna", "/api/v1/events", "999999", 1)
	require.Equal(t, api.EventReset, reset[0].Name)
	require.Equal(t, only[0].ID, reset[0].ID, "go on from the newest")
}

func TestEventsThatWereForgotten(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	require.NoError(t, b.store.Update(ctx, func(tx *store.Tx) error {
		for i := range 10100 {
			if err := tx.Emit(ctx, "finding", "", i); err != nil {
				return err
			}
		}
		return nil
	}))
	oldest, newest, err := b.store.EventRange(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 10000, newest-oldest+1, "the table is bounded")
	require.Equal(t, api.EventReset, b.collect("anna", "/api/v1/events", "50", 1)[0].Name)
	ev := b.collect("anna", "/api/v1/events", strconv.FormatInt(oldest-1, 10), 300)
	require.Equal(t, strconv.FormatInt(oldest, 10), ev[0].ID, "nothing is missing")
}

// TestCommandsSurviveReconnection cuts a node's stream again and again; each
// command arrives, in order, and once it is answered not any more.
func TestCommandsSurviveReconnection(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var mu sync.Mutex
	var got []string
	followed := make(chan error, 1)
	go func() {
		followed <- b.as("n1").Follow(ctx, "/api/v1/nodes/n1/commands", "", func(ev api.Event) error {
			var c api.Command
			if err := json.Unmarshal(ev.Data, &c); err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			if got = append(got, c.Reason); len(got) == 20 {
				return errEnough
			}
			return nil
		})
	}()
	for i := range 20 {
		require.NoError(t, b.store.Update(ctx, func(tx *store.Tx) error {
			_, err := command(ctx, tx, "n1", api.VerbPurge, "user:x", strconv.Itoa(i), nil)
			return err
		}))
		if i%7 == 3 {
			b.cut()
		}
	}
	require.ErrorIs(t, <-followed, errEnough)
	for i, r := range got {
		require.Equal(t, strconv.Itoa(i), r)
	}
	// A node that lost its memory gets all unanswered ones again.
	cmds, err := b.store.Waiting(ctx, "n1", 0)
	require.NoError(t, err)
	require.NoError(t, b.as("n1").Post(ctx, "/api/v1/nodes/n1/batches", api.Batch{ID: "01A", Results: []api.CommandResult{{Command: cmds[0].ID, OK: true}}}, nil))
	ev := b.collect("n1", "/api/v1/nodes/n1/commands", "", 1)
	require.Equal(t, "2", ev[0].ID)
	err = b.as("n1").Stream(ctx, "/api/v1/nodes/n1/commands", "-1", func(api.Event) error { return nil })
	wantProblem(t, err, 422, api.ProblemInvalid)
}

func TestStreamsAreBounded(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.open.Store(maxStreams)
	err := b.as("anna").Stream(t.Context(), "/api/v1/events", "", func(api.Event) error { return nil })
	p := wantProblem(t, err, 429, api.ProblemLimited)
	require.NotEmpty(t, p.Detail)
	b.open.Store(0)
	done := make(chan error, 1)
	go func() {
		done <- b.as("anna").Stream(t.Context(), "/api/v1/events", "", func(api.Event) error { return nil })
	}()
	require.Eventually(t, func() bool { return b.open.Load() == 1 }, 5*time.Second, time.Millisecond)
	b.stop.Do(func() { close(b.stopping) })
	require.NoError(t, <-done, "a stopping manager ends streams cleanly")
	require.Eventually(t, func() bool { return b.open.Load() == 0 }, 5*time.Second, time.Millisecond)
	require.Equal(t, http.StatusOK, b.call("GET", "/healthz", "", nil).StatusCode)
}
