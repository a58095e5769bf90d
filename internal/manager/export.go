package manager

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// uploads joins a person who waits for content with the node that sends it:
// the body is relayed, never stored here.
type uploads struct {
	mu      sync.Mutex
	waiting map[string]*upload // by id
}

type upload struct {
	node string
	body chan io.Reader // one value: the node is here
	done chan error     // one value: the person has it all, or why not
}

func newUploads() *uploads { return &uploads{waiting: map[string]*upload{}} }

func (u *uploads) expect(id, node string) *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	x := &upload{node: node, body: make(chan io.Reader, 1), done: make(chan error, 1)}
	u.waiting[id] = x
	return x
}

// take removes an expectation; only one upload serves it.
func (u *uploads) take(id, node string) *upload {
	u.mu.Lock()
	defer u.mu.Unlock()
	x := u.waiting[id]
	if x == nil || x.node != node {
		return nil
	}
	delete(u.waiting, id)
	return x
}

type exportIn struct {
	ByID
	Body api.ExportRequest
}

// export asks the item's node for a password-protected archive and passes it
// on. The password reaches the node only; it is neither logged nor kept.
func (m *Manager) export(ctx context.Context, in *exportIn) (*huma.StreamResponse, error) {
	if err := checkReason(in.Body.Reason); err != nil {
		return nil, err
	}
	if len(in.Body.Password) < 4 || len(in.Body.Password) > 128 {
		return nil, invalid("the archive's password must have 4 to 128 bytes")
	}
	id := store.NewID()
	var wait *upload
	var cmd api.Command
	err := m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		i, err := held(ctx, tx.Reader, in.ID)
		if err != nil {
			return err
		}
		e.Target, e.Reason = "quarantine/"+i.ID, in.Body.Reason
		e.Detail = detail(map[string]any{"object": i.Object, "node": i.Node, "path": i.Location.Path})
		wait = m.uploads.expect(id, i.Node)
		cmd, err = command(ctx, tx, i.Node, api.VerbExport, e.Actor, in.Body.Reason,
			api.ExportArgs{Item: i.ID, Upload: id, Password: in.Body.Password})
		return err
	})
	if err != nil {
		if wait != nil {
			m.uploads.take(id, wait.node)
		}
		return nil, err
	}
	content, err := m.await(ctx, id, wait, cmd)
	if err != nil {
		return nil, err
	}
	return raw(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/zip")
		w.Header().Set("Content-Disposition", `attachment; filename="`+in.ID+`.zip"`)
		_, err := io.Copy(w, content)
		wait.done <- err
		if err != nil {
			panic(http.ErrAbortHandler) // the only way to tell that the archive is cut off
		}
	}), nil
}

// await returns the node's upload, or why there is none.
func (m *Manager) await(ctx context.Context, id string, u *upload, cmd api.Command) (io.Reader, error) {
	changed, stop := m.store.Watch()
	defer stop()
	timeout := time.NewTimer(m.NodeWait)
	defer timeout.Stop()
	for {
		select {
		case r := <-u.body:
			return r, nil
		case <-changed:
			if c, err := m.store.Command(ctx, cmd.ID); err == nil && c.State == api.CommandFailed {
				m.uploads.take(id, u.node)
				return nil, conflict("node %s could not export the item: %s", u.node, c.Result.Error)
			}
			continue
		case <-timeout.C:
		case <-ctx.Done():
		case <-m.stopping:
		}
		if m.uploads.take(id, u.node) == nil {
			return <-u.body, nil // it came at the last moment
		}
		m.withdraw(ctx, u.node, cmd.ID)
		return nil, problem(http.StatusGatewayTimeout, api.ProblemTimeout,
			"node %s did not send the item within %s: check that it runs", u.node, m.NodeWait)
	}
}

// withdraw answers a command nobody waits for any more in the node's place, so
// that it is not carried out later.
func (m *Manager) withdraw(ctx context.Context, node, id string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), auditTimeout)
	defer cancel()
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.Answer(ctx, node, api.CommandResult{Command: id, Error: "withdrawn: nobody waits for it any more", Done: tx.Now})
		return err
	})
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		m.Logger.ErrorContext(ctx, "command was not withdrawn", slog.String("command", id), slog.Any("error", err))
	}
}

type uploadIn struct {
	Node string `path:"node"`
	ID   string `path:"id" maxLength:"100"`
}

// upload relays a node's content to the person who waits for it.
func (m *Manager) upload(ctx context.Context, in *uploadIn) (*huma.StreamResponse, error) {
	u := m.uploads.take(in.ID, in.Node)
	if u == nil {
		return nil, problem(http.StatusNotFound, api.ProblemNotFound, "nobody waits for upload %s", in.ID)
	}
	return &huma.StreamResponse{Body: func(c huma.Context) {
		r, w := humago.Unwrap(c)
		u.body <- r.Body
		select {
		case err := <-u.done:
			if err != nil {
				m.writeProblem(ctx, w, problem(http.StatusServiceUnavailable, api.ProblemUnavailable, "the receiver is gone"))
				return
			}
			w.WriteHeader(http.StatusNoContent)
		case <-ctx.Done():
			// The body must not be used after this handler: wait for the reader,
			// whose read fails now.
			<-u.done
		}
	}}, nil
}
