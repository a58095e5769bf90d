package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
)

func (a *app) scansCommand() *cobra.Command {
	var state string
	var limit int
	c := &cobra.Command{
		Use: "scans", Short: "List scans that run in the daemon, with their progress", Args: cobra.NoArgs,
		Example: `  lazaret scan --detach /srv && lazaret scans
  lazaret scans --state running`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.Scan](c.Context(), client, api.Prefix+"/scans", limit, api.Query("state", state))
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("ID", "NODE", "STATE", "STARTED", "FILES", "THREATS", "PARTIAL", "TARGET")
					for _, s := range list {
						w.Row(s.ID, s.Node, s.State, short(s.Started), s.Summary.Files, s.Summary.Malicious+s.Summary.Suspicious, s.Summary.Partial, targetOf(&s.Request))
					}
				})
			})
		},
	}
	c.Flags().StringVar(&state, "state", "", "queued, running, done, cancelled or failed")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many, 0 for all")
	c.AddCommand(a.scansShow(), a.scansCancel())
	return c
}

func (a *app) scansShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a scan with its progress", Args: cobra.ExactArgs(1),
		Long:    `Show a scan with its progress. What it found is in the findings.`,
		Example: `  lazaret scans show 01JD5Z4M8K3V9Q2W7X6C1B0N5A`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var s api.Scan
				if err := client.Get(c.Context(), api.Prefix+"/scans/"+escape(args[0]), &s); err != nil {
					return err
				}
				return a.print(s, func(w *output.Writer) { drawScan(w, &s) })
			})
		},
	}
}

func drawScan(w *output.Writer, s *api.Scan) {
	w.Row("Scan", s.ID)
	w.Row("Target", targetOf(&s.Request))
	w.Row("Node", s.Node)
	w.Row("State", s.State)
	if s.Error != "" {
		w.Row("Error", s.Error)
	}
	w.Row("Started", short(s.Started))
	if s.Finished != nil {
		w.Row("Finished", short(*s.Finished))
	}
	sum := &s.Summary
	files := fmt.Sprint(sum.Files)
	if sum.Total > sum.Files {
		files += fmt.Sprintf(" of %d", sum.Total)
	}
	w.Row("Files", files+", "+bytesText(sum.Bytes))
	w.Row("Threats", fmt.Sprintf("%d malicious, %d suspicious", sum.Malicious, sum.Suspicious))
	w.Row("Not inspected", fmt.Sprintf("%d partly, %d errors, %d skipped", sum.Partial, sum.Errors, sum.Skipped))
}

func (a *app) scansCancel() *cobra.Command {
	var wait time.Duration
	c := &cobra.Command{
		Use: "cancel ID", Short: "Cancel a scan that waits or runs", Args: cobra.ExactArgs(1),
		Example: `  lazaret scans cancel 01JD5Z4M8K3V9Q2W7X6C1B0N5A`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var acc api.Accepted
				if err := client.Post(c.Context(), api.Prefix+"/scans/"+escape(args[0])+"/cancel", nil, &acc,
					api.IdempotencyKey(ulid.Make().String())); err != nil {
					return err
				}
				if _, err := awaitCommand(c.Context(), client, acc.Command, wait); err != nil {
					return err
				}
				return a.print(acc, func(w *output.Writer) { w.Line("scan %s is cancelled", args[0]) })
			})
		},
	}
	c.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the node")
	return c
}

func targetOf(r *api.ScanRequest) string {
	switch {
	case r.Container != "":
		return "container " + r.Container
	case r.Image != "":
		return "image " + r.Image
	}
	return strings.Join(r.Paths, " ")
}
