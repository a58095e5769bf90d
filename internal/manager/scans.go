package manager

import (
	"context"
	"path/filepath"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
)

type scansIn struct {
	Paging
	State string `query:"state" enum:"queued,running,done,cancelled,failed"`
}

func (m *Manager) listScans(ctx context.Context, in *scansIn) (*answer[api.Page[api.Scan]], error) {
	list, cursor, err := m.store.Scans(ctx, in.State, store.Page{After: in.PageToken, Limit: in.Limit})
	return &answer[api.Page[api.Scan]]{api.Page[api.Scan]{Items: list, NextPageToken: cursor}}, err
}

func (m *Manager) getScan(ctx context.Context, in *ByID) (*answer[api.Scan], error) {
	s, err := m.store.Scan(ctx, in.ID)
	return &answer[api.Scan]{s}, err
}

type scanIn struct {
	Keyed
	Body api.ScanRequest
}

// createScan queues a scan on a node; without a name on the only one there is.
func (m *Manager) createScan(ctx context.Context, in *scanIn) (*answer[api.Scan], error) {
	r := in.Body
	if err := checkScan(r); err != nil {
		return nil, err
	}
	out, err := act(ctx, m, in.Keyed, in.Body, func(tx *store.Tx, e *api.AuditEntry) (api.Scan, error) {
		nodes, err := tx.Nodes(ctx)
		if err != nil {
			return api.Scan{}, err
		}
		if r.Node == "" && len(nodes) == 1 {
			r.Node = nodes[0].Name
		}
		if r.Node == "" {
			return api.Scan{}, invalid("name the node: there are %d", len(nodes))
		}
		if _, err := tx.Node(ctx, r.Node); err != nil {
			return api.Scan{}, err
		}
		r.ID = store.NewID()
		s := api.Scan{ID: r.ID, Node: r.Node, Request: r, State: api.ScanQueued, Started: tx.Now}
		e.Target, e.Detail = "scan/"+s.ID, detail(r)
		cmd, err := command(ctx, tx, r.Node, api.VerbScan, e.Actor, "", r)
		if err != nil {
			return s, err
		}
		if err := tx.AddScan(ctx, s, cmd.ID); err != nil {
			return s, err
		}
		return s, tx.Emit(ctx, api.EventScan, "", s)
	})
	return &answer[api.Scan]{out}, err
}

func checkScan(r api.ScanRequest) error {
	targets := 0
	for _, given := range []bool{len(r.Paths) > 0, r.Container != "", r.Image != ""} {
		if given {
			targets++
		}
	}
	switch {
	case targets != 1:
		return invalid("name paths, a container or an image, and only one of them")
	case len(r.Paths) > 1000:
		return invalid("at most 1000 paths")
	case r.Priority != "" && r.Priority != "on-demand" && r.Priority != "scheduled":
		return invalid("priority is on-demand or scheduled")
	case r.ID != "":
		return invalid("the manager chooses the id")
	}
	for _, p := range append(r.Paths[:len(r.Paths):len(r.Paths)], r.Image) {
		if p != "" && !filepath.IsAbs(p) {
			return invalid("%q is not an absolute path on the node", p)
		}
	}
	return nil
}

type cancelIn struct {
	ByID
	Keyed
}

func (m *Manager) cancelScan(ctx context.Context, in *cancelIn) (*answer[api.Accepted], error) {
	out, err := act(ctx, m, in.Keyed, in.ID, func(tx *store.Tx, e *api.AuditEntry) (api.Accepted, error) {
		s, err := tx.Scan(ctx, in.ID)
		if err != nil {
			return api.Accepted{}, err
		}
		if s.State != api.ScanQueued && s.State != api.ScanRunning {
			return api.Accepted{}, conflict("the scan has ended: it is %s", s.State)
		}
		e.Target = "scan/" + s.ID
		cmd, err := command(ctx, tx, s.Node, api.VerbCancelScan, e.Actor, "", api.ScanRef{ID: s.ID})
		return api.Accepted{Command: cmd.ID}, err
	})
	return &answer[api.Accepted]{out}, err
}
