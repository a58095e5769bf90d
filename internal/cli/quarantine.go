package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/google/renameio/v2"
	"github.com/oklog/ulid/v2"
	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/threat"
)

func (a *app) quarantineCommand() *cobra.Command {
	c := &cobra.Command{Use: "quarantine", Short: "Files that were taken away", Example: `  lazaret quarantine list --state held`}
	c.AddCommand(a.quarantineList(), a.quarantineShow(), a.quarantineRestore(), a.quarantineExport(), a.quarantineDelete())
	return c
}

func (a *app) quarantineList() *cobra.Command {
	var state, node, finding string
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List quarantine items, newest first", Args: cobra.NoArgs,
		Example: `  lazaret quarantine list
  lazaret quarantine list --state held -o json`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.QuarantineItem](c.Context(), client, api.Prefix+"/quarantine", limit,
					api.Query("state", state), api.Query("node", node), api.Query("finding", finding))
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("ID", "TAKEN", "STATE", "WORKLOAD", "IMAGE", "PATH", "SIZE", "EXPIRES")
					for _, i := range list {
						w.Row(i.ID, short(i.Taken), i.State, name(i.Workload), i.Workload.Image, i.Location.Path, i.Size, short(i.Expires))
					}
				})
			})
		},
	}
	c.Flags().StringVar(&state, "state", "", "storing, held, restored or purged")
	c.Flags().StringVar(&node, "node", "", "of this node")
	c.Flags().StringVar(&finding, "finding", "", "of this finding")
	c.Flags().IntVar(&limit, "limit", 100, "at most so many, 0 for all")
	return c
}

func (a *app) quarantineShow() *cobra.Command {
	return &cobra.Command{
		Use: "show ID", Short: "Show a quarantine item", Args: cobra.ExactArgs(1),
		Example: `  lazaret quarantine show 01JD5Z4M8K3V9Q2W7X6C1B0N5A`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var i api.QuarantineItem
				if err := client.Get(c.Context(), api.Prefix+"/quarantine/"+escape(args[0]), &i); err != nil {
					return err
				}
				return a.print(i, func(w *output.Writer) {
					w.Row("Item", i.ID)
					w.Row("State", i.State)
					w.Row("Finding", i.Finding)
					w.Row("Workload", name(i.Workload)+" ("+i.Workload.ID+")")
					w.Row("Path", i.Location.Path)
					w.Row("SHA-256", i.Object)
					w.Row("Size", i.Size)
					w.Row("Owner", fmt.Sprintf("%d:%d mode %04o", i.UID, i.GID, i.Mode&0o7777))
					w.Row("Taken", short(i.Taken))
					w.Row("Expires", short(i.Expires))
				})
			})
		},
	}
}

func (a *app) quarantineRestore() *cobra.Command {
	var r api.RestoreRequest
	var wait time.Duration
	c := &cobra.Command{
		Use: "restore ID", Short: "Put a file back", Args: cobra.ExactArgs(1),
		Long: `Put a file back where it was, with owner, mode, attributes and times; if there
is another file now, under a new name beside it. The content is inspected again:
a file that is still malicious is refused (exit code 12) unless --allow-for
declares it harmless for that time.`,
		Example: `  lazaret quarantine restore 01JD5Z… --reason "needed by the web team" --allow-for 24h
  lazaret quarantine restore 01JD5Z… --reason "for analysis" --path /root/sample`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var acc api.Accepted
				if err := client.Post(c.Context(), api.Prefix+"/quarantine/"+escape(args[0])+"/restore", r, &acc,
					api.IdempotencyKey(ulid.Make().String())); err != nil {
					return err
				}
				state, err := awaitCommand(c.Context(), client, acc.Command, wait)
				var done api.RestoreResult
				if state.Result != nil && len(state.Result.Detail) > 0 {
					if err := json.Unmarshal(state.Result.Detail, &done); err != nil {
						return fmt.Errorf("reading the node's answer: %w", err)
					}
				}
				switch {
				case err != nil && state.Result != nil && done.Verdict != "" && done.Verdict != threat.Clean:
					return refusal{err, "--allow-for declares it harmless for a time"}
				case err != nil:
					return err
				}
				return a.print(done, func(w *output.Writer) { w.Line("restored to %s (%s)", done.Path, done.Verdict) })
			})
		},
	}
	c.Flags().StringVar(&r.Reason, "reason", "", "why, in words (required)")
	c.Flags().StringVar(&r.Path, "path", "", "another place on the host")
	c.Flags().StringVar(&r.AllowFor, "allow-for", "", "declare the object harmless for so long, such as 24h")
	c.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the node")
	must(c.MarkFlagRequired("reason"))
	return c
}

func (a *app) quarantineExport() *cobra.Command {
	var r api.ExportRequest
	var to string
	c := &cobra.Command{
		Use: "export ID", Short: "Download an item as password-protected zip", Args: cobra.ExactArgs(1),
		Long: `Download an item as zip archive, encrypted with AES-256. The file is still what
it was: unpack it only where it can do no harm.`,
		Example: `  lazaret quarantine export 01JD5Z… --to sample.zip --reason "analysis" --password infected`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error { return a.export(c.Context(), client, args[0], to, r) })
		},
	}
	c.Flags().StringVar(&r.Reason, "reason", "", "why, in words (required)")
	c.Flags().StringVar(&r.Password, "password", "infected", "password of the archive")
	c.Flags().StringVar(&to, "to", "", "file to write (default ID.zip)")
	must(c.MarkFlagRequired("reason"))
	return c
}

func (a *app) export(ctx context.Context, client *api.Client, id, to string, r api.ExportRequest) error {
	if to == "" {
		to = id + ".zip"
	}
	body, err := jsonBody(r)
	if err != nil {
		return err
	}
	resp, err := client.Open(ctx, http.MethodPost, api.Prefix+"/quarantine/"+escape(id)+"/export", body,
		api.Header("Content-Type", "application/json"), api.Header("Accept", "application/zip"))
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	// The file appears whole or not at all, and only its owner may read it.
	f, err := renameio.NewPendingFile(to, renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	defer f.Cleanup()
	n, err := io.Copy(f, resp.Body)
	if err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	return a.print(map[string]any{"path": to, "size": n}, func(w *output.Writer) {
		w.Line("%s: %d bytes, handle with care", to, n)
	})
}

func (a *app) quarantineDelete() *cobra.Command {
	var r api.PurgeRequest
	var wait time.Duration
	c := &cobra.Command{
		Use: "delete ID", Short: "Delete an item for good", Args: cobra.ExactArgs(1),
		Example: `  lazaret quarantine delete 01JD5Z… --reason "analysed, ticket 4711"`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var acc api.Accepted
				if err := client.Post(c.Context(), api.Prefix+"/quarantine/"+escape(args[0])+"/purge", r, &acc,
					api.IdempotencyKey(ulid.Make().String())); err != nil {
					return err
				}
				if _, err := awaitCommand(c.Context(), client, acc.Command, wait); err != nil {
					return err
				}
				return a.print(acc, func(w *output.Writer) { w.Line("quarantine item %s is deleted", args[0]) })
			})
		},
	}
	c.Flags().StringVar(&r.Reason, "reason", "", "why, in words (required)")
	c.Flags().DurationVar(&wait, "wait", time.Minute, "how long to wait for the node")
	must(c.MarkFlagRequired("reason"))
	return c
}
