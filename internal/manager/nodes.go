package manager

import (
	"context"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// NodeIn is the input of routes that name a node.
type NodeIn struct {
	Node string `path:"node" maxLength:"253"`
}

func (m *Manager) listNodes(ctx context.Context, _ *empty) (*answer[api.Page[api.Node]], error) {
	list, err := m.store.Nodes(ctx)
	return &answer[api.Page[api.Node]]{api.Page[api.Node]{Items: list}}, err
}

func (m *Manager) getNode(ctx context.Context, in *NodeIn) (*answer[api.Node], error) {
	n, err := m.store.Node(ctx, in.Node)
	return &answer[api.Node]{n}, err
}

func (m *Manager) deleteNode(ctx context.Context, in *NodeIn) (*struct{}, error) {
	return nil, m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target = "node/" + in.Node
		return tx.DeleteNode(ctx, in.Node)
	})
}

func (m *Manager) createNodeToken(ctx context.Context, in *NodeIn) (*answer[api.NodeToken], error) {
	out := api.NodeToken{Node: in.Node}
	err := m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) (err error) {
		e.Target = "node/" + in.Node
		out.Secret, err = addNodeToken(ctx, tx, in.Node)
		return err
	})
	return &answer[api.NodeToken]{out}, err
}
