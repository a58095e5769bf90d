package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/threat"
)

func (a *app) findingCommand() *cobra.Command {
	c := &cobra.Command{Use: "finding", Short: "What was found, and what a person decides", Example: `  lazaret finding list --state open`}
	c.AddCommand(a.findingList(), a.findingShow(), a.findingDecide(), a.findingWatch())
	return c
}

func (a *app) findingList() *cobra.Command {
	var state []string
	var severity, workload, node, object, text string
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List findings, newest first", Args: cobra.NoArgs,
		Example: `  lazaret finding list
  lazaret finding list --state waiting
  lazaret finding list --severity high --workload container/web-1 -o jsonl`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[threat.Finding](c.Context(), client, api.Prefix+"/findings", limit,
					api.Query("state", strings.Join(state, ",")), api.Query("severity", severity), api.Query("workload", workload),
					api.Query("node", node), api.Query("object", object), api.Query("q", text))
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("ID", "LAST SEEN", "SEVERITY", "STATE", "WORKLOAD", "IMAGE", "PATH", "SIGNATURE", "COUNT")
					for _, f := range list {
						w.Row(f.ID, short(f.LastSeen), f.Severity, f.State, name(f.Workload), f.Workload.Image, f.Location.Path, signatures(f.Detections), f.Count)
					}
				})
			})
		},
	}
	f := c.Flags()
	f.StringSliceVar(&state, "state", nil, "open, waiting, contained, resolved or dismissed; may be repeated")
	f.StringVar(&severity, "severity", "", "at least this: informational, low, medium, high or critical")
	f.StringVar(&workload, "workload", "", "id or name of the workload")
	f.StringVar(&node, "node", "", "of this node")
	f.StringVar(&object, "object", "", "SHA-256 of the object")
	f.StringVar(&text, "text", "", "text in path, image, names or signatures")
	f.IntVar(&limit, "limit", 100, "at most so many, 0 for all")
	return c
}

func (a *app) findingShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a finding with its decisions", Args: cobra.ExactArgs(1),
		Example: `  lazaret finding show 01JD5Z4M8K3V9Q2W7X6C1B0N5A`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var f threat.Finding
				if err := client.Get(c.Context(), api.Prefix+"/findings/"+escape(args[0]), &f); err != nil {
					return err
				}
				return a.print(f, func(w *output.Writer) { drawFinding(w, &f) })
			})
		},
	}
}

func drawFinding(w *output.Writer, f *threat.Finding) {
	w.Row("Finding", f.ID)
	w.Row("Severity", f.Severity)
	w.Row("State", f.State)
	w.Row("Workload", name(f.Workload)+" ("+f.Workload.ID+")")
	for _, r := range [][2]string{
		{"Image", f.Workload.Image}, {"Pod", f.Workload.Pod}, {"Path", f.Location.Path}, {"Member", f.Member},
		{"Host path", f.Location.HostPath}, {"Layer", f.Location.Layer}, {"SHA-256", f.Object.String()},
		{"Trigger", f.Trigger}, {"Policy", f.Policy}, {"Quarantine", f.VaultID},
	} {
		if r[1] != "" {
			w.Row(r[0], r[1])
		}
	}
	if p := f.Process; p != nil {
		w.Row("Process", fmt.Sprintf("%s (pid %d, uid %d)", p.Exe, p.PID, p.UID))
	}
	w.Row("Seen", fmt.Sprintf("%d times, first %s, last %s", f.Count, short(f.Time), short(f.LastSeen)))
	for _, d := range f.Detections {
		w.Row("Detection", strings.TrimSpace(fmt.Sprintf("%s (%s, %s) %s %s", d.Signature, d.Engine, d.Severity, d.Technique, d.Description)))
	}
	for _, d := range f.Decisions {
		text := fmt.Sprintf("%s %s by %s: %s", short(d.At), d.Action, d.By, d.Result)
		for _, more := range []string{d.Reason, d.Detail} {
			if more != "" {
				text += "; " + more
			}
		}
		w.Row("Decision", text)
	}
}

func (a *app) findingDecide() *cobra.Command {
	var r api.DecisionRequest
	var wait time.Duration
	c := &cobra.Command{
		Use: "decide ID ACTION", Short: "Decide on a finding", Args: cobra.ExactArgs(2),
		Long: `Decide on a finding. ACTION is quarantine, delete, kill, allow, resolve or
dismiss. allow declares the object harmless for the time of --for. The reason
goes into the finding and the audit log. What the node has to do is waited for;
exit code 2 if it could not.`,
		Example: `  lazaret finding decide 01JD5Z… quarantine --reason "confirmed web shell"
  lazaret finding decide 01JD5Z… allow --for 720h --reason "our own test file"
  lazaret finding decide 01JD5Z… dismiss --reason "false positive, ticket 4711"`,
		RunE: func(c *cobra.Command, args []string) error {
			r.Action = threat.Action(args[1])
			return a.withClient(func(client *api.Client) error {
				var f threat.Finding
				if err := client.Post(c.Context(), api.Prefix+"/findings/"+escape(args[0])+"/decisions", r, &f,
					api.IdempotencyKey(ulid.Make().String())); err != nil {
					return err
				}
				f, err := a.awaitDecision(c.Context(), client, f, wait)
				if err != nil {
					return err
				}
				if err := a.print(f, func(w *output.Writer) { drawFinding(w, &f) }); err != nil {
					return err
				}
				if n := len(f.Decisions); n > 0 && f.Decisions[n-1].Result == threat.ResultFailed {
					return fmt.Errorf("the decision could not be carried out: %s", f.Decisions[n-1].Detail)
				}
				return nil
			})
		},
	}
	c.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long to wait for the node, 0s for not at all")
	c.Flags().StringVar(&r.Reason, "reason", "", "why, in words (required)")
	c.Flags().StringVar(&r.AllowFor, "for", "", "with allow: how long, such as 24h or 720h")
	must(c.MarkFlagRequired("reason"))
	return c
}

// awaitDecision reads the finding until its newest decision is carried out, or
// failed. A node that is not there will do it later: that is no error.
func (a *app) awaitDecision(ctx context.Context, client *api.Client, f threat.Finding, wait time.Duration) (threat.Finding, error) {
	end := time.Now().Add(wait)
	for delay := 50 * time.Millisecond; ; delay = min(2*delay, time.Second) {
		n := len(f.Decisions)
		if n == 0 || f.Decisions[n-1].Result != threat.ResultPending {
			return f, nil
		}
		if time.Now().After(end) {
			a.say("the node has not carried it out yet; see lazaret finding show %s", f.ID)
			return f, nil
		}
		select {
		case <-ctx.Done():
			return f, context.Cause(ctx)
		case <-time.After(delay):
		}
		var next threat.Finding
		if err := client.Get(ctx, api.Prefix+"/findings/"+escape(f.ID), &next); err != nil {
			return f, err
		}
		f = next
	}
}

func (a *app) findingWatch() *cobra.Command {
	return &cobra.Command{
		Use: "watch", Short: "Print findings as they happen, until interrupted", Args: cobra.NoArgs,
		Long: `Print findings as they happen. A broken connection is made again, and what
happened meanwhile is printed then.`,
		Example: `  lazaret finding watch
  lazaret finding watch -o jsonl | jq -r .location.path`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				return client.Follow(c.Context(), api.Prefix+"/events", "", func(ev api.Event) error {
					if ev.Name != api.EventFinding {
						return nil
					}
					var f threat.Finding
					if err := json.Unmarshal(ev.Data, &f); err != nil {
						return fmt.Errorf("reading event: %w", err)
					}
					return a.print(f, func(w *output.Writer) {
						w.Line("%s  %s  %s  %s  %s  %s", short(f.LastSeen), f.Severity, f.State, name(f.Workload), f.Location.Path, signatures(f.Detections))
					})
				})
			})
		},
	}
}

func signatures(ds []threat.Detection) string {
	if len(ds) == 0 {
		return ""
	}
	s := ds[0].Signature
	if len(ds) > 1 {
		s += fmt.Sprintf(" (+%d)", len(ds)-1)
	}
	return s
}
