package link

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/node/spool"
	"github.com/lazaret/lazaret/internal/threat"
)

// manager speaks the manager's side of the protocol and can be away.
type manager struct {
	mu       sync.Mutex
	away     bool
	lose     int // answers to batches that get lost after the batch was stored
	batches  []api.Batch
	reports  []api.Report
	config   api.NodeConfig
	tag      string
	fetched  int // configurations sent
	commands []api.Command
	streams  int
}

func (m *manager) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.away {
		panic(http.ErrAbortHandler)
	}
	switch r.Method + " " + r.URL.Path {
	case "POST /api/v1/nodes/n1/batches":
		var b api.Batch
		if json.NewDecoder(r.Body).Decode(&b) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		m.batches = append(m.batches, b)
		if m.lose > 0 {
			m.lose--
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusNoContent)
	case "POST /api/v1/nodes/n1/report":
		var rep api.Report
		if json.NewDecoder(r.Body).Decode(&rep) == nil {
			m.reports = append(m.reports, rep)
		}
		w.WriteHeader(http.StatusNoContent)
	case "GET /api/v1/nodes/n1/config":
		if r.Header.Get("If-None-Match") == m.tag {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		m.fetched++
		w.Header().Set("ETag", m.tag)
		_ = json.NewEncoder(w).Encode(m.config)
	case "GET /api/v1/nodes/n1/commands":
		m.streams++
		w.Header().Set("Content-Type", "text/event-stream")
		for i, c := range m.commands {
			b, _ := json.Marshal(c)
			_, _ = fmt.Fprintf(w, "id: %d\nevent: command\ndata: %s\n\n", i+1, b)
		}
		_, _ = fmt.Fprint(w, "id: 99\nevent: command\ndata: {broken\n\n")
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// with runs f while the manager does nothing.
func with[T any](m *manager, f func() T) T {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f()
}

// obedient remembers the commands it is given.
type obedient struct {
	mu  sync.Mutex
	ids []string
}

func (o *obedient) Command(_ context.Context, c api.Command) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.ids = append(o.ids, c.ID)
}

func (o *obedient) got(id string) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Contains(o.ids, id)
}

type stand struct {
	*Link
	manager    *manager
	spool      *spool.Spool
	commands   *obedient
	conditions *condition.Set

	mu      sync.Mutex
	applied []api.NodeConfig
	refuse  error
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{manager: &manager{tag: `"1"`}, commands: &obedient{}, conditions: &condition.Set{}}
	server := httptest.NewServer(s.manager)
	t.Cleanup(server.Close)
	client, err := api.NewClient(api.ClientConfig{URL: server.URL})
	require.NoError(t, err)
	t.Cleanup(func() { _ = client.Close() })
	s.spool, err = spool.Open(t.Context(), t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.spool.Close()) })
	s.Link = New(Config{
		Client: client, Node: "n1", Spool: s.spool, Commands: s.commands, Conditions: s.conditions,
		Logger: slog.New(slog.DiscardHandler), ReportEvery: 20 * time.Millisecond,
		Report: func() api.Report { return api.Report{Version: "v1", Epoch: 4} },
		Configure: func(_ context.Context, c api.NodeConfig) error {
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.refuse == nil {
				s.applied = append(s.applied, c)
			}
			return s.refuse
		},
	})
	return s
}

func (s *stand) configurations() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.applied)
}

func (s *stand) run(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-done:
			require.NoError(t, err)
		case <-time.After(5 * time.Second):
			t.Error("the link does not end")
		}
	})
}

func (s *stand) record(t *testing.T, n byte) string {
	t.Helper()
	f := threat.Finding{Object: threat.Hash{n}, Location: threat.Location{Path: "/x"}}
	_, err := s.spool.Record(t.Context(), &f)
	require.NoError(t, err)
	return f.ID
}

func (s *stand) waiting(t *testing.T) int {
	t.Helper()
	b, _, err := s.spool.Next(t.Context(), 10_000)
	require.NoError(t, err)
	return len(b.Findings)
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 10*time.Second, 5*time.Millisecond, what)
}

func (s *stand) unreachable() bool {
	return slices.ContainsFunc(s.conditions.List(), func(c threat.Condition) bool { return c.Code == "manager_unreachable" })
}

// TestAway: while the manager is away a condition says so and the spool keeps
// everything; when it is back it gets everything, once.
func TestAway(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.manager.away = true
	var ids []string
	for i := range byte(3) {
		ids = append(ids, s.record(t, i))
	}
	s.run(t)
	eventually(t, "condition", s.unreachable)
	ids = append(ids, s.record(t, 3))
	require.Equal(t, 4, s.waiting(t))
	with(s.manager, func() bool { s.manager.away = false; return true })
	eventually(t, "spool is empty", func() bool { return s.waiting(t) == 0 })
	eventually(t, "condition ends", func() bool { return !s.unreachable() })
	var got []string
	for _, b := range with(s.manager, func() []api.Batch { return s.manager.batches }) {
		require.NotEmpty(t, b.ID)
		for _, f := range b.Findings {
			got = append(got, f.ID)
		}
	}
	require.Equal(t, ids, got)
	eventually(t, "reports", func() bool {
		return with(s.manager, func() bool { return len(s.manager.reports) > 1 && s.manager.reports[0].Epoch == 4 })
	})
}

// TestLostAnswer: a batch whose answer got lost is sent again under the same
// id, by which the manager knows it.
func TestLostAnswer(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.manager.lose = 2
	s.record(t, 1)
	s.run(t)
	eventually(t, "spool is empty", func() bool { return s.waiting(t) == 0 })
	batches := with(s.manager, func() []api.Batch { return s.manager.batches })
	require.Len(t, batches, 3)
	require.Equal(t, batches[0].ID, batches[2].ID)
	s.record(t, 2)
	eventually(t, "the next batch", func() bool { return s.waiting(t) == 0 })
	batches = with(s.manager, func() []api.Batch { return s.manager.batches })
	require.Greater(t, batches[3].ID, batches[2].ID)
}

// TestCommands: commands are handed over, one that cannot be read is passed
// over, and the stream is opened again after it ended.
func TestCommands(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.manager.commands = []api.Command{{ID: "a", Verb: api.VerbConfig}, {ID: "b", Verb: "dance"}}
	s.run(t)
	eventually(t, "commands", func() bool { return s.commands.got("a") && s.commands.got("b") })
	with(s.manager, func() bool {
		s.manager.commands = append(s.manager.commands, api.Command{ID: "c"})
		return true
	})
	eventually(t, "a later command", func() bool { return s.commands.got("c") })
	require.Greater(t, with(s.manager, func() int { return s.manager.streams }), 1)
}

// TestConfiguration: it is put in force once, fetched again only if changed,
// and one that was refused is tried again.
func TestConfiguration(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	s.manager.config = api.NodeConfig{Epoch: 7}
	s.refuse = errors.New("policy does not parse")
	require.ErrorIs(t, s.FetchNow(t.Context()), s.refuse)
	s.refuse = nil
	require.NoError(t, s.FetchNow(t.Context()))
	require.NoError(t, s.FetchNow(t.Context()))
	require.Equal(t, 1, s.configurations())
	require.EqualValues(t, 7, s.applied[0].Epoch)
	require.Equal(t, 2, s.manager.fetched, "the third answer was: not modified")

	s.run(t)
	with(s.manager, func() bool { s.manager.config.Epoch, s.manager.tag = 8, `"2"`; return true })
	require.NoError(t, s.FetchNow(t.Context()))
	eventually(t, "new configuration", func() bool { return s.configurations() == 2 })
	with(s.manager, func() bool { s.manager.away = true; return true })
	require.ErrorIs(t, s.FetchNow(t.Context()), api.ErrUnreachable)
}

// TestSilentManager: one that accepts and never answers holds up neither the
// end of the link nor its uploads for ever.
func TestSilentManager(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { _ = l.Close() })
	s := newStand(t)
	client, err := api.NewClient(api.ClientConfig{URL: "http://" + l.Addr().String()})
	require.NoError(t, err)
	s.Client = client
	s.record(t, 1)
	s.run(t) // its clean-up wants the end within five seconds
	time.Sleep(50 * time.Millisecond)
	require.Equal(t, 1, s.waiting(t))
}
