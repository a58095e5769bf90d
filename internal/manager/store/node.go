package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/api"
)

// PutReport stores a node's newest report and tells whether its conditions
// differ from those of the one before.
func (t *Tx) PutReport(ctx context.Context, node string, r api.Report) (changed bool, err error) {
	b, err := encode("report", r)
	if err != nil {
		return false, err
	}
	var key string
	for _, c := range r.Conditions {
		key += c.Code + " " + string(c.Severity) + " " + c.Text + "\n"
	}
	var before sql.NullString
	err = t.q.QueryRowContext(ctx, "SELECT conditions FROM node WHERE name = ?", node).Scan(&before)
	if err != nil && err != sql.ErrNoRows { //nolint:errorlint // database/sql returns it bare
		return false, fmt.Errorf("reading node: %w", err)
	}
	_, err = t.exec(ctx, "storing report", `INSERT INTO node (name, last_seen, conditions, report) VALUES (?, ?, ?, ?)
		ON CONFLICT (name) DO UPDATE SET last_seen = excluded.last_seen, conditions = excluded.conditions, report = excluded.report`,
		node, t.Now.UnixNano(), key, b)
	return !before.Valid || before.String != key, err
}

// ensureNode makes a record for a node that never reported.
func (t *Tx) ensureNode(ctx context.Context, node string) error {
	_, err := t.exec(ctx, "storing node", `INSERT INTO node (name, last_seen, report) VALUES (?, 0, '{}') ON CONFLICT (name) DO NOTHING`, node)
	return err
}

func scanNode(r *sql.Rows) (n api.Node, err error) {
	var seen int64
	var b []byte
	if err = r.Scan(&n.Name, &seen, &b); err != nil {
		return n, err
	}
	if seen > 0 {
		n.LastSeen = time.Unix(0, seen).UTC()
	}
	return n, json.Unmarshal(b, &n.Report)
}

// Nodes returns all nodes by name.
func (r Reader) Nodes(ctx context.Context) ([]api.Node, error) {
	return rows(ctx, r.q, "listing nodes", scanNode, "SELECT name, last_seen, report FROM node ORDER BY name")
}

// Node returns one node.
func (r Reader) Node(ctx context.Context, name string) (api.Node, error) {
	list, err := rows(ctx, r.q, "reading node", scanNode, "SELECT name, last_seen, report FROM node WHERE name = ?", name)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("node %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return api.Node{}, err
	}
	return list[0], nil
}

// DeleteNode removes a node with its tokens and waiting commands; findings and
// quarantine records stay.
func (t *Tx) DeleteNode(ctx context.Context, name string) error {
	if err := t.change(ctx, "node "+name, "DELETE FROM node WHERE name = ?", name); err != nil {
		return err
	}
	if err := t.DeleteTokens(ctx, TokenNode, name); err != nil {
		return err
	}
	_, err := t.exec(ctx, "deleting commands", "DELETE FROM command WHERE node = ?", name)
	return err
}

// SeeBatch remembers a batch; false says it was here before.
func (t *Tx) SeeBatch(ctx context.Context, node, id string) (bool, error) {
	if err := t.ensureNode(ctx, node); err != nil {
		return false, err
	}
	n, err := t.exec(ctx, "storing batch", "INSERT INTO batch (node, id, received) VALUES (?, ?, ?) ON CONFLICT DO NOTHING", node, id, t.Now.UnixNano())
	return n > 0, err
}
