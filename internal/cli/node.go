package cli

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/threat"
)

func (a *app) nodeCommand() *cobra.Command {
	c := &cobra.Command{Use: "node", Short: "Hosts that run Lazaret", Example: `  lazaret node list`}
	c.AddCommand(a.nodeList(), a.nodeShow(), a.nodeDelete())
	return c
}

func (a *app) nodeList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List nodes", Args: cobra.NoArgs,
		Example: `  lazaret node list`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.Node](c.Context(), client, api.Prefix+"/nodes", 0)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) { drawNodes(w, list) })
			})
		},
	}
}

func (a *app) nodeShow() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a node: what it protects, its conditions and counters", Args: cobra.ExactArgs(1),
		Example: `  lazaret node show web-host-3
  lazaret node show web-host-3 -o json | jq .report.stats`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var n api.Node
				if err := client.Get(c.Context(), api.Prefix+"/nodes/"+escape(args[0]), &n); err != nil {
					return err
				}
				return a.print(n, func(w *output.Writer) { drawNode(w, &n) })
			})
		},
	}
}

func (a *app) nodeDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Forget a node that is gone; its token becomes invalid", Args: cobra.ExactArgs(1),
		Example: `  lazaret node delete web-host-3`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				return client.Delete(c.Context(), api.Prefix+"/nodes/"+escape(args[0]))
			})
		},
	}
}

func drawNode(w *output.Writer, n *api.Node) {
	r := &n.Report
	w.Row("Node", n.Name)
	w.Row("Version", r.Version)
	w.Row("Last seen", short(n.LastSeen))
	w.Row("Signatures", fmt.Sprintf("bundle %d", r.Epoch))
	w.Row("Protected", protected(r.Protected))
	w.Row("Workloads", len(r.Workloads))
	for _, name := range slices.Sorted(maps.Keys(r.Stats)) {
		w.Row(name, r.Stats[name])
	}
	drawConditions(w, r.Conditions)
}

func protected(paths []string) string {
	if len(paths) == 0 {
		return "nothing"
	}
	return strings.Join(paths, " ")
}

func drawConditions(w *output.Writer, list []threat.Condition) {
	for _, c := range list {
		w.Line("")
		w.Line("%s (%s, since %s)", c.Code, c.Severity, short(c.Since))
		w.Line("  %s", c.Text)
		if c.Advice != "" {
			w.Line("  → %s", c.Advice)
		}
	}
}

func drawNodes(w *output.Writer, list []api.Node) {
	w.Row("NODE", "VERSION", "EPOCH", "WORKLOADS", "PROTECTED", "CONDITIONS", "LAST SEEN")
	for _, n := range list {
		w.Row(n.Name, n.Report.Version, n.Report.Epoch, len(n.Report.Workloads), protected(n.Report.Protected), len(n.Report.Conditions), short(n.LastSeen))
	}
}
