package store

import (
	"context"
	"fmt"

	"github.com/lazaret/lazaret/api"
)

// PutItem stores what a node reported about a quarantine item; the version of
// the newest batch wins, as with findings.
func (t *Tx) PutItem(ctx context.Context, batch string, i api.QuarantineItem) (bool, error) {
	b, err := encode("quarantine item", i)
	if err != nil {
		return false, err
	}
	n, err := t.exec(ctx, "storing quarantine item", `
		INSERT INTO quarantine (id, node, batch, tenant, state, finding, body) VALUES (?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, tenant = excluded.tenant,
			state = excluded.state, finding = excluded.finding, body = excluded.body
		WHERE node = excluded.node AND batch < excluded.batch`,
		i.ID, i.Node, batch, i.Workload.Tenant, i.State, i.Finding, b)
	return n > 0, err
}

// Item returns one quarantine item.
func (r Reader) Item(ctx context.Context, id string) (api.QuarantineItem, error) {
	return one[api.QuarantineItem](ctx, r.q, "quarantine item "+id, "SELECT body FROM quarantine WHERE id = ?", id)
}

// ItemFilter selects quarantine items; zero fields select all.
type ItemFilter struct {
	State   string
	Node    string
	Finding string
	Tenants []string // nil: all
}

// Items returns one page, newest first, and the cursor of the next.
func (r Reader) Items(ctx context.Context, f ItemFilter, p Page) ([]api.QuarantineItem, string, error) {
	tenants := ""
	if f.Tenants != nil {
		tenants = jsonList(f.Tenants)
	}
	list, err := rows(ctx, r.q, "listing quarantine", body[api.QuarantineItem], `
		SELECT body FROM quarantine WHERE (?1 = '' OR state = ?1) AND (?2 = '' OR node = ?2) AND (?3 = '' OR finding = ?3)
		AND (?4 = '' OR tenant IN (SELECT value FROM json_each(?4))) AND (?5 = '' OR id < ?5)
		ORDER BY id DESC LIMIT ?6`, f.State, f.Node, f.Finding, tenants, p.After, p.limit()+1)
	if err != nil {
		return nil, "", err
	}
	list, cursor := next(list, p.limit(), func(i api.QuarantineItem) string { return i.ID })
	return list, cursor, nil
}

// CountHeld counts items that are in quarantine now.
func (r Reader) CountHeld(ctx context.Context) (int64, error) {
	var n int64
	if err := r.q.QueryRowContext(ctx, "SELECT count(*) FROM quarantine WHERE state = 'held'").Scan(&n); err != nil {
		return 0, fmt.Errorf("counting quarantine: %w", err)
	}
	return n, nil
}
