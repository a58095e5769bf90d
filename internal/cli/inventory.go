package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/threat"
)

func (a *app) workloadCommand() *cobra.Command {
	c := &cobra.Command{Use: "workload", Short: "What is protected: containers, virtual machines, hosts", Example: `  lazaret workload list`}
	var node, kind, text string
	list := &cobra.Command{
		Use: "list", Short: "List workloads", Args: cobra.NoArgs,
		Example: `  lazaret workload list
  lazaret workload list --kind container --text nginx -o jsonl`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[threat.Workload](c.Context(), client, api.Prefix+"/workloads", 0,
					api.Query("node", node), api.Query("kind", kind), api.Query("q", text))
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("ID", "KIND", "NAME", "IMAGE", "POD", "RUNTIME", "NODE")
					for _, x := range list {
						w.Row(x.ID, x.Kind, x.Name, x.Image, x.Pod, x.Runtime, x.Node)
					}
				})
			})
		},
	}
	list.Flags().StringVar(&node, "node", "", "on this node")
	list.Flags().StringVar(&kind, "kind", "", "host, container or vm")
	list.Flags().StringVar(&text, "text", "", "text in id, name, image or pod")
	c.AddCommand(list)
	return c
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use: "status", Short: "What is protected, what was found, what is wrong", Args: cobra.NoArgs,
		Long: `Show health, conditions with advice, nodes and counts. A condition is something
you should know: protection is degraded, signatures are old, events were lost.
docs/using.md lists all codes. Exit code 0 whatever the conditions are; scripts
look at .health or ask /readyz.`,
		Example: `  lazaret status
  lazaret status -o json | jq .conditions`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				var s api.Status
				if err := client.Get(c.Context(), api.Prefix+"/status", &s); err != nil {
					return err
				}
				return a.print(s, func(w *output.Writer) { drawStatus(w, &s) })
			})
		},
	}
}

func drawStatus(w *output.Writer, s *api.Status) {
	health := "good"
	switch len(s.Conditions) {
	case 0:
	case 1:
		health = "1 condition, " + string(s.Health)
	default:
		health = fmt.Sprintf("%d conditions, worst %s", len(s.Conditions), s.Health)
	}
	w.Row("Health", health)
	w.Row("Signatures", fmt.Sprintf("bundle %d", s.Epoch))
	w.Row("Findings", fmt.Sprintf("%d open, %d waiting for a decision, %d contained", s.Findings["open"], s.Findings["waiting"], s.Findings["contained"]))
	w.Row("Quarantine", fmt.Sprintf("%d items", s.Quarantine))
	w.Line("")
	drawNodes(w, s.Nodes)
	drawConditions(w, s.Conditions)
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use: "version", Short: "Print the version", Args: cobra.NoArgs,
		Example: `  lazaret version`,
		RunE: func(*cobra.Command, []string) error {
			return a.print(map[string]string{"version": a.Version}, func(w *output.Writer) { w.Line("lazaret %s", a.Version) })
		},
	}
}
