package store

import (
	"context"

	"github.com/lazaret/lazaret/api"
)

// AddScan stores a scan asked for here, with the command that starts it.
func (t *Tx) AddScan(ctx context.Context, s api.Scan, command string) error {
	if _, err := t.PutScan(ctx, "", s); err != nil {
		return err
	}
	return t.change(ctx, "scan "+s.ID, "UPDATE scan SET command = ? WHERE id = ?", command, s.ID)
}

// PutScan stores a scan's progress as its node reported it; the newest batch
// wins.
func (t *Tx) PutScan(ctx context.Context, batch string, s api.Scan) (bool, error) {
	b, err := encode("scan", s)
	if err != nil {
		return false, err
	}
	n, err := t.exec(ctx, "storing scan", `INSERT INTO scan (id, node, batch, state, body) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET batch = excluded.batch, state = excluded.state, body = excluded.body
		WHERE node = excluded.node AND batch < excluded.batch`, s.ID, s.Node, batch, s.State, b)
	return n > 0, err
}

// Scan returns one scan.
func (r Reader) Scan(ctx context.Context, id string) (api.Scan, error) {
	return one[api.Scan](ctx, r.q, "scan "+id, "SELECT body FROM scan WHERE id = ?", id)
}

// ScanOfCommand returns the scan a command shall start.
func (r Reader) ScanOfCommand(ctx context.Context, command string) (api.Scan, error) {
	return one[api.Scan](ctx, r.q, "scan of command "+command, "SELECT body FROM scan WHERE command = ?", command)
}

// Scans returns one page, newest first, and the cursor of the next.
func (r Reader) Scans(ctx context.Context, state string, p Page) ([]api.Scan, string, error) {
	list, err := rows(ctx, r.q, "listing scans", body[api.Scan], `SELECT body FROM scan
		WHERE (?1 = '' OR state = ?1) AND (?2 = '' OR id < ?2) ORDER BY id DESC LIMIT ?3`, state, p.After, p.limit()+1)
	if err != nil {
		return nil, "", err
	}
	list, cursor := next(list, p.limit(), func(s api.Scan) string { return s.ID })
	return list, cursor, nil
}
