package manager

import (
	"context"
	"fmt"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
)

type itemsIn struct {
	Paging
	State   string `query:"state" enum:"storing,held,restored,purged"`
	Node    string `query:"node"`
	Finding string `query:"finding"`
}

func (m *Manager) listItems(ctx context.Context, in *itemsIn) (*answer[api.Page[api.QuarantineItem]], error) {
	list, cursor, err := m.store.Items(ctx, store.ItemFilter{
		State: in.State, Node: in.Node, Finding: in.Finding, Tenants: callOf(ctx).tenants(),
	}, store.Page{After: in.PageToken, Limit: in.Limit})
	return &answer[api.Page[api.QuarantineItem]]{api.Page[api.QuarantineItem]{Items: list, NextPageToken: cursor}}, err
}

func (m *Manager) getItem(ctx context.Context, in *ByID) (*answer[api.QuarantineItem], error) {
	i, err := m.store.Item(ctx, in.ID)
	if err == nil && !callOf(ctx).sees(i.Workload.Tenant) {
		err = fmt.Errorf("quarantine item %s: %w", in.ID, store.ErrNotFound)
	}
	return &answer[api.QuarantineItem]{i}, err
}

// held returns an item that is still in its vault.
func held(ctx context.Context, r store.Reader, id string) (api.QuarantineItem, error) {
	i, err := r.Item(ctx, id)
	if err == nil && i.State != api.ItemHeld {
		err = conflict("the item is not in quarantine: it is %s", i.State)
	}
	return i, err
}

type restoreIn struct {
	ByID
	Keyed
	Body api.RestoreRequest
}

// restore asks the node to put a file back. The node inspects it again; without
// AllowFor it refuses what is still malicious.
func (m *Manager) restore(ctx context.Context, in *restoreIn) (*answer[api.Accepted], error) {
	if err := checkReason(in.Body.Reason); err != nil {
		return nil, err
	}
	out, err := act(ctx, m, in.Keyed, in.Body, func(tx *store.Tx, e *api.AuditEntry) (api.Accepted, error) {
		i, err := held(ctx, tx.Reader, in.ID)
		if err != nil {
			return api.Accepted{}, err
		}
		e.Target, e.Reason = "quarantine/"+i.ID, in.Body.Reason
		e.Detail = detail(map[string]any{"object": i.Object, "node": i.Node, "path": i.Location.Path, "to": in.Body.Path, "allow_for": in.Body.AllowFor})
		if in.Body.AllowFor != "" {
			life, err := duration(in.Body.AllowFor, maxAllow)
			if err != nil {
				return api.Accepted{}, err
			}
			a := api.AllowedObject{Hash: i.Object, Reason: in.Body.Reason, By: e.Actor, Expires: tx.Now.Add(life)}
			if err := tx.Allow(ctx, a); err != nil {
				return api.Accepted{}, err
			}
			// Before the restore: the node must know the permission when it inspects.
			if err := m.reconfigure(ctx, tx, e.Actor, "object allowed"); err != nil {
				return api.Accepted{}, err
			}
		}
		cmd, err := command(ctx, tx, i.Node, api.VerbRestore, e.Actor, in.Body.Reason, api.RestoreArgs{Item: i.ID, Path: in.Body.Path})
		return api.Accepted{Command: cmd.ID}, err
	})
	return &answer[api.Accepted]{out}, err
}

type purgeIn struct {
	ByID
	Keyed
	Body api.PurgeRequest
}

func (m *Manager) purge(ctx context.Context, in *purgeIn) (*answer[api.Accepted], error) {
	if err := checkReason(in.Body.Reason); err != nil {
		return nil, err
	}
	out, err := act(ctx, m, in.Keyed, in.Body, func(tx *store.Tx, e *api.AuditEntry) (api.Accepted, error) {
		i, err := held(ctx, tx.Reader, in.ID)
		if err != nil {
			return api.Accepted{}, err
		}
		e.Target, e.Reason = "quarantine/"+i.ID, in.Body.Reason
		e.Detail = detail(map[string]any{"object": i.Object, "node": i.Node, "path": i.Location.Path})
		cmd, err := command(ctx, tx, i.Node, api.VerbPurge, e.Actor, in.Body.Reason, api.PurgeArgs{Item: i.ID})
		return api.Accepted{Command: cmd.ID}, err
	})
	return &answer[api.Accepted]{out}, err
}
