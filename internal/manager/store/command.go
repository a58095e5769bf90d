package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"

	"github.com/lazaret/lazaret/api"
)

// Sequenced is a command with its place in its node's stream.
type Sequenced struct {
	api.Command
	Sequence int64
}

// AddCommand queues a command for a node. A waiting "config" command is
// replaced: only the newest configuration counts.
func (t *Tx) AddCommand(ctx context.Context, node string, c api.Command) error {
	if err := t.ensureNode(ctx, node); err != nil {
		return err
	}
	if c.Verb == api.VerbConfig {
		if _, err := t.exec(ctx, "replacing command", "DELETE FROM command WHERE node = ? AND state = 'pending' AND verb = ?", node, c.Verb); err != nil {
			return err
		}
	}
	b, err := encode("command", c)
	if err != nil {
		return err
	}
	var seq int64
	err = t.q.QueryRowContext(ctx, "UPDATE node SET sequence = sequence + 1 WHERE name = ? RETURNING sequence", node).Scan(&seq)
	if err != nil {
		return fmt.Errorf("numbering command: %w", err)
	}
	_, err = t.exec(ctx, "storing command", "INSERT INTO command (id, node, sequence, verb, body) VALUES (?, ?, ?, ?, ?)",
		c.ID, node, seq, c.Verb, b)
	return err
}

// Waiting returns a node's unanswered commands after a sequence number, in
// order, at most 100.
func (r Reader) Waiting(ctx context.Context, node string, after int64) ([]Sequenced, error) {
	return rows(ctx, r.q, "listing commands", func(r *sql.Rows) (s Sequenced, err error) {
		var b []byte
		if err = r.Scan(&s.Sequence, &b); err != nil {
			return s, err
		}
		return s, json.Unmarshal(b, &s.Command)
	}, "SELECT sequence, body FROM command WHERE node = ? AND state = 'pending' AND sequence > ? ORDER BY sequence LIMIT 100", node, after)
}

// Answer stores a command's result. It returns the command, or ErrNotFound if
// this node has no such unanswered command. Arguments are forgotten: they may
// hold a password.
func (t *Tx) Answer(ctx context.Context, node string, res api.CommandResult) (api.CommandState, error) {
	c, err := t.Command(ctx, res.Command)
	if err != nil {
		return c, err
	}
	if c.Node != node || c.State != api.CommandPending {
		return c, fmt.Errorf("unanswered command %s: %w", res.Command, ErrNotFound)
	}
	c.State, c.Result, c.Args = api.CommandDone, &res, nil
	if !res.OK {
		c.State = api.CommandFailed
	}
	b, err := encode("command", c.Command)
	if err != nil {
		return c, err
	}
	result, err := encode("result", res)
	if err != nil {
		return c, err
	}
	return c, t.change(ctx, "command "+c.ID, "UPDATE command SET state = ?, body = ?, result = ? WHERE id = ?", c.State, b, result, c.ID)
}

// Command returns a command with its result.
func (r Reader) Command(ctx context.Context, id string) (api.CommandState, error) {
	list, err := rows(ctx, r.q, "reading command", func(r *sql.Rows) (c api.CommandState, err error) {
		var b, result []byte
		if err = r.Scan(&c.Node, &c.State, &b, &result); err != nil {
			return c, err
		}
		if err = json.Unmarshal(b, &c.Command); err != nil || result == nil {
			return c, err
		}
		c.Result = &api.CommandResult{}
		return c, json.Unmarshal(result, c.Result)
	}, "SELECT node, state, body, result FROM command WHERE id = ?", id)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("command %s: %w", id, ErrNotFound)
	}
	if err != nil {
		return api.CommandState{}, err
	}
	return list[0], nil
}
