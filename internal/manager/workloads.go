package manager

import (
	"context"
	"slices"
	"strings"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

// workloads are what the nodes reported last and the caller may see, by node
// and id.
func (m *Manager) workloads(ctx context.Context) ([]threat.Workload, error) {
	nodes, err := m.store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	c := callOf(ctx)
	out := []threat.Workload{}
	for _, n := range nodes {
		for _, w := range n.Report.Workloads {
			w.Node = n.Name
			if c.sees(w.Tenant) {
				out = append(out, w)
			}
		}
	}
	slices.SortFunc(out, func(a, b threat.Workload) int { return strings.Compare(workloadKey(a), workloadKey(b)) })
	return out, nil
}

func workloadKey(w threat.Workload) string { return w.Node + "\n" + w.ID }

type workloadsIn struct {
	Paging
	Node string `query:"node"`
	Kind string `query:"kind" enum:"host,container,vm"`
	Text string `query:"q" maxLength:"200" doc:"text in id, name, image, pod"`
}

func (m *Manager) listWorkloads(ctx context.Context, in *workloadsIn) (*answer[api.Page[threat.Workload]], error) {
	list, err := m.workloads(ctx)
	page := api.Page[threat.Workload]{Items: []threat.Workload{}}
	for _, w := range list {
		text := strings.ToLower(strings.Join([]string{w.ID, w.Name, w.Image, w.Pod}, "\n"))
		switch {
		case in.Node != "" && w.Node != in.Node, in.Kind != "" && string(w.Kind) != in.Kind,
			!strings.Contains(text, strings.ToLower(in.Text)), in.PageToken != "" && workloadKey(w) <= in.PageToken:
			continue
		}
		if len(page.Items) == in.Limit {
			page.NextPageToken = workloadKey(page.Items[in.Limit-1])
			break
		}
		page.Items = append(page.Items, w)
	}
	return &answer[api.Page[threat.Workload]]{page}, err
}
