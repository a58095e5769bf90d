package api

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"time"
)

// maxEvent bounds one server-sent event.
const maxEvent = 16 << 20

// Event is one server-sent event (WHATWG HTML, section 9.2).
type Event struct {
	ID   string // empty: keeps the last one
	Name string // the event field, "message" if absent
	Data []byte
}

// EventReader reads server-sent events from a stream.
type EventReader struct {
	r     *bufio.Reader
	retry time.Duration
}

// NewEventReader reads from r, which the caller closes.
func NewEventReader(r io.Reader) *EventReader {
	return &EventReader{r: bufio.NewReader(r)}
}

// Retry is the reconnection delay the server asked for, 0 if it did not.
func (e *EventReader) Retry() time.Duration { return e.retry }

// Next returns the next event with data. It returns io.EOF at the stream's end;
// an event without its closing empty line is dropped, as the specification
// wants it.
func (e *EventReader) Next() (Event, error) {
	var ev Event
	var data bytes.Buffer
	seen := false
	size := 0
	for {
		line, err := e.line(maxEvent - size)
		if err != nil {
			return Event{}, err
		}
		size += len(line)
		if len(line) == 0 {
			if seen {
				if ev.Name == "" {
					ev.Name = "message"
				}
				ev.Data = bytes.Clone(data.Bytes())
				return ev, nil
			}
			ev, size = Event{}, 0
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "id":
			if !bytes.ContainsRune(value, 0) {
				ev.ID = string(value)
			}
		case "event":
			ev.Name = string(value)
		case "data":
			if seen {
				data.WriteByte('\n')
			}
			seen = true
			data.Write(value)
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				e.retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
}

// line reads one line of at most max bytes, ended by LF or CRLF, without its
// end.
func (e *EventReader) line(limit int) ([]byte, error) {
	var out []byte
	for {
		part, err := e.r.ReadSlice('\n')
		if len(out)+len(part) > limit {
			return nil, fmt.Errorf("reading event: longer than %d bytes", maxEvent)
		}
		out = append(out, part...)
		if err == nil {
			return bytes.TrimSuffix(bytes.TrimSuffix(out, []byte("\n")), []byte("\r")), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) && len(out) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return nil, err
		}
	}
}

// Stream opens one event stream and calls f for every event until the stream
// ends (nil), f returns an error (that error) or the connection breaks
// (ErrUnreachable). last is the id of the last event that was handled, empty
// to start where the server chooses.
func (c *Client) Stream(ctx context.Context, path, last string, f func(Event) error, opts ...Option) error {
	opts = append([]Option{Header("Accept", "text/event-stream")}, opts...)
	if last != "" {
		opts = append(opts, Header("Last-Event-ID", last))
	}
	resp, err := c.Open(ctx, http.MethodGet, path, nil, opts...)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	r := NewEventReader(resp.Body)
	for {
		ev, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return unreachable(ctx, err)
		}
		if err := f(ev); err != nil {
			return err
		}
	}
}

// Follow keeps an event stream open: after a break it connects again, with
// growing delays of at most 15 seconds, after the last handled event. It
// returns f's error, the context's cause, or a *Problem that says the request
// itself is refused.
func (c *Client) Follow(ctx context.Context, path, last string, f func(Event) error, opts ...Option) error {
	const first, longest = 250 * time.Millisecond, 15 * time.Second
	delay := first
	for {
		var own error
		err := c.Stream(ctx, path, last, func(ev Event) error {
			delay = first
			if own = f(ev); own != nil {
				return own
			}
			if ev.ID != "" {
				last = ev.ID
			}
			return nil
		}, opts...)
		var p *Problem
		switch {
		case own != nil:
			return own
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case errors.As(err, &p) && p.Status < 500 && p.Status != http.StatusTooManyRequests:
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(delay):
		}
		delay = min(2*delay, longest)
	}
}
