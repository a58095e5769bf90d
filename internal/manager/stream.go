package manager

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// Bounds of streams. A stream ends after streamLife and the client connects
// again where it was: so a withdrawn token or role counts within that time.
const (
	streamLife = 15 * time.Minute
	heartbeat  = 15 * time.Second
	maxStreams = 512
	writeWait  = 30 * time.Second
)

// sse is one open event stream.
type sse struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (s sse) send(text string) error {
	if err := s.rc.SetWriteDeadline(time.Now().Add(writeWait)); err != nil {
		return fmt.Errorf("writing event: %w", err)
	}
	if _, err := s.w.Write([]byte(text)); err != nil {
		return fmt.Errorf("writing event: %w", err)
	}
	return s.rc.Flush()
}

// event sends one event; data is one line of JSON.
func (s sse) event(id int64, name string, data []byte) error {
	return s.send(fmt.Sprintf("id: %d\nevent: %s\ndata: %s\n\n", id, name, data))
}

// stream runs an event stream: more sends what is new, and is called after
// every change of the store.
func (m *Manager) stream(ctx context.Context, more func(sse) error) (*huma.StreamResponse, error) {
	if n := m.open.Add(1); n > maxStreams {
		m.open.Add(-1)
		return nil, tooMany(10*time.Second, "too many open streams")
	}
	return raw(func(w http.ResponseWriter, _ *http.Request) {
		defer m.open.Add(-1)
		m.metrics.streams.Inc()
		defer m.metrics.streams.Dec()
		changed, stop := m.store.Watch()
		defer stop()
		w.Header().Set("Content-Type", "text/event-stream")
		w.Header().Set("X-Accel-Buffering", "no") // proxies must not hold events back
		s := sse{w, http.NewResponseController(w)}
		defer s.rc.SetWriteDeadline(time.Time{}) //nolint:errcheck // the connection may serve another request
		if s.send("retry: 1000\n\n") != nil {
			return
		}
		end := time.After(streamLife)
		beat := time.NewTicker(heartbeat)
		defer beat.Stop()
		for {
			if more(s) != nil {
				return // the caller is gone, or will ask again and get the error
			}
			select {
			case <-changed:
			case <-beat.C:
				if s.send(": still here\n\n") != nil {
					return
				}
			case <-ctx.Done():
				return
			case <-end:
				return
			case <-m.stopping:
				return
			}
		}
	}), nil
}

type eventsIn struct {
	LastEventID string   `header:"Last-Event-ID" doc:"go on after this event; 0: from the oldest kept"`
	Names       []string `query:"name" doc:"only events of these names"`
}

// events streams changes from now on, or from Last-Event-ID on. If events in
// between are gone, the first event is "reset".
func (m *Manager) events(ctx context.Context, in *eventsIn) (*huma.StreamResponse, error) {
	oldest, newest, err := m.store.EventRange(ctx)
	if err != nil {
		return nil, err
	}
	after, reset := newest, false
	if in.LastEventID != "" {
		if after, err = strconv.ParseInt(in.LastEventID, 10, 64); err != nil || after < 0 {
			return nil, invalid("Last-Event-ID is not an id of this stream")
		}
		if after > newest || (after > 0 && after < oldest-1) {
			after, reset = newest, true
		}
	}
	c := callOf(ctx)
	return m.stream(ctx, func(s sse) error {
		if reset {
			reset = false
			if err := s.event(after, api.EventReset, []byte("{}")); err != nil {
				return err
			}
		}
		for {
			list, err := m.store.Events(ctx, after, 100)
			if err != nil || len(list) == 0 {
				return err
			}
			for _, e := range list {
				after = e.ID
				if in.wants(e) && c.sees(e.Tenant) {
					if err := s.event(e.ID, e.Name, e.Body); err != nil {
						return err
					}
				}
			}
		}
	})
}

func (in *eventsIn) wants(e store.EventRecord) bool {
	return len(in.Names) == 0 || slices.Contains(in.Names, e.Name)
}

type commandsIn struct {
	NodeIn
	LastEventID string `header:"Last-Event-ID" doc:"sequence number of the last command that arrived"`
}

// commands streams a node's commands. Without Last-Event-ID it begins with the
// oldest unanswered one, so that a node that crashed gets its work again.
func (m *Manager) commands(ctx context.Context, in *commandsIn) (*huma.StreamResponse, error) {
	var after int64
	if in.LastEventID != "" {
		var err error
		if after, err = strconv.ParseInt(in.LastEventID, 10, 64); err != nil || after < 0 {
			return nil, invalid("Last-Event-ID is not a sequence number")
		}
	}
	return m.stream(ctx, func(s sse) error {
		for {
			list, err := m.store.Waiting(ctx, in.Node, after)
			if err != nil || len(list) == 0 {
				return err
			}
			for _, c := range list {
				after = c.Sequence
				if err := s.event(c.Sequence, "command", detail(c.Command)); err != nil {
					return err
				}
			}
		}
	})
}
