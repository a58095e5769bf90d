package manager

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// Keyed is the input of actions that can be repeated without harm.
type Keyed struct {
	IdempotencyKey string `header:"Idempotency-Key" maxLength:"200" doc:"repeats with the same key are answered like the first call"`
}

// act is change for actions: under an idempotency key the answer is stored in
// the same transaction, and a repetition gets it without a second effect.
func act[O any](ctx context.Context, m *Manager, k Keyed, request any, f func(tx *store.Tx, e *api.AuditEntry) (O, error)) (O, error) {
	var out O
	c := callOf(ctx)
	b, err := json.Marshal(request)
	if err != nil {
		return out, fmt.Errorf("encoding request: %w", err)
	}
	digest := sha256.Sum256(append([]byte(c.rule.Action+"\n"+c.target+"\n"), b...))
	err = m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		if k.IdempotencyKey != "" {
			earlier, err := tx.Repeated(ctx, c.principal.Name, k.IdempotencyKey, digest)
			if err != nil {
				return err
			}
			if earlier != nil {
				e.Detail = detail(map[string]bool{"repeated": true})
				return json.Unmarshal(earlier, &out)
			}
		}
		if out, err = f(tx, e); err != nil || k.IdempotencyKey == "" {
			return err
		}
		return tx.Remember(ctx, c.principal.Name, k.IdempotencyKey, digest, out)
	})
	return out, err
}

// command queues a command for a node in the name of the caller.
func command(ctx context.Context, tx *store.Tx, node, verb, by, reason string, args any) (api.Command, error) {
	cmd := api.Command{ID: store.NewID(), Verb: verb, By: by, Reason: reason, Issued: tx.Now}
	if args != nil {
		b, err := json.Marshal(args)
		if err != nil {
			return cmd, fmt.Errorf("encoding command: %w", err)
		}
		cmd.Args = b
	}
	return cmd, tx.AddCommand(ctx, node, cmd)
}

// reconfigure tells every node that its configuration changed.
func (m *Manager) reconfigure(ctx context.Context, tx *store.Tx, by, reason string) error {
	nodes, err := tx.Nodes(ctx)
	if err != nil {
		return err
	}
	for _, n := range nodes {
		if _, err := command(ctx, tx, n.Name, api.VerbConfig, by, reason, nil); err != nil {
			return err
		}
	}
	return nil
}

// checkReason bounds what people write into the audit log; every action that
// cannot be undone easily needs one.
func checkReason(reason string) error {
	switch {
	case reason == "":
		return invalid("give a reason: it goes into the audit log")
	case len(reason) > 1024:
		return invalid("the reason is longer than 1024 bytes")
	}
	return nil
}
