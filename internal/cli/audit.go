package cli

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/manager/audit"
)

func (a *app) auditCommand() *cobra.Command {
	c := &cobra.Command{Use: "audit", Short: "Who did what: a log that cannot be changed unnoticed", Example: `  lazaret audit list`}
	c.AddCommand(a.auditList(), a.auditVerify(), a.auditCheckpoint())
	return c
}

func (a *app) auditList() *cobra.Command {
	var limit int
	c := &cobra.Command{
		Use: "list", Short: "List audit entries, newest first", Args: cobra.NoArgs,
		Example: `  lazaret audit list
  lazaret audit list --limit 0 -o jsonl`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.AuditEntry](c.Context(), client, api.Prefix+"/audit/entries", limit)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("INDEX", "TIME", "ACTOR", "ACTION", "TARGET", "DECISION", "REASON")
					for _, e := range list {
						w.Row(e.Index, short(e.Time), e.Actor, e.Action, e.Target, e.Decision, e.Reason)
					}
				})
			})
		},
	}
	c.Flags().IntVar(&limit, "limit", 50, "at most so many, 0 for all")
	return c
}

func (a *app) auditVerify() *cobra.Command {
	var dir, key, remembered string
	c := &cobra.Command{
		Use: "verify", Short: "Check every entry, the tree and its signature", Args: cobra.NoArgs,
		Long: `Check the audit log: every entry, the Merkle tree (RFC 6962) and the signed
checkpoint. Without --dir the log is fetched from the manager and checked here;
with --dir a copy of the log's directory is checked, no manager needed. Keep the
checkpoint of an earlier check in a safe place and give it with --remembered: a
log that was cut short or rewritten since then is noticed. Exit code 0 if the
log is as it was signed, 2 otherwise.`,
		Example: `  lazaret audit verify
  lazaret audit verify --dir /backup/audit --key "$(cat audit.pub)" --remembered checkpoint.txt`,
		RunE: func(c *cobra.Command, _ []string) error {
			o := audit.Options{Key: key}
			if remembered != "" {
				b, err := os.ReadFile(remembered)
				if err != nil {
					return fmt.Errorf("reading remembered checkpoint: %w", err)
				}
				o.Remembered = b
			}
			rep, err := a.verifyAudit(c, dir, o)
			if err != nil {
				return err
			}
			if err := a.print(rep, func(w *output.Writer) { drawVerification(w, rep) }); err != nil {
				return err
			}
			if !rep.OK() {
				return exitError(ExitError)
			}
			return nil
		},
	}
	c.Flags().StringVar(&dir, "dir", "", "check a copy of the log's directory")
	c.Flags().StringVar(&key, "key", "", "verifier key (default: the log's own, which proves less)")
	c.Flags().StringVar(&remembered, "remembered", "", "file with the checkpoint of an earlier check")
	return c
}

func (a *app) verifyAudit(c *cobra.Command, dir string, o audit.Options) (audit.Report, error) {
	if dir != "" {
		return audit.Verify(dir, o)
	}
	var rep audit.Report
	err := a.withClient(func(client *api.Client) error {
		if o.Key == "" {
			var cp api.AuditCheckpoint
			if err := client.Get(c.Context(), api.Prefix+"/audit/checkpoint", &cp); err != nil {
				return err
			}
			o.Key = cp.Key
		}
		if o.Key == "" {
			return errors.New("the audit log is empty")
		}
		resp, err := client.Open(c.Context(), http.MethodGet, api.Prefix+"/audit/export", nil)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		rep, err = audit.VerifyStream(resp.Body, o)
		return err
	})
	return rep, err
}

func (a *app) auditCheckpoint() *cobra.Command {
	return &cobra.Command{
		Use: "checkpoint", Short: "Print the newest signed checkpoint, to be kept elsewhere", Args: cobra.NoArgs,
		Long: `Print the newest signed checkpoint, a signed note (c2sp.org/tlog-checkpoint).
Keep it where nobody with power over the manager can change it, and give it to
a later lazaret audit verify --remembered. -o json also has the verifier key.`,
		Example: `  lazaret audit checkpoint >checkpoint.txt
  lazaret audit checkpoint -o json | jq -r .key >audit.pub`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				var cp api.AuditCheckpoint
				if err := client.Get(c.Context(), api.Prefix+"/audit/checkpoint", &cp); err != nil {
					return err
				}
				return a.print(cp, func(w *output.Writer) {
					for line := range strings.Lines(cp.Checkpoint) {
						w.Line("%s", strings.TrimSuffix(line, "\n"))
					}
				})
			})
		},
	}
}

func drawVerification(w *output.Writer, r audit.Report) {
	if r.Unsigned > 0 {
		w.Line("%d entries behind the signed checkpoint prove nothing", r.Unsigned)
	}
	if r.OK() {
		w.Line("the audit log verifies: %d entries, signed tree %s", r.Size, r.Root)
		if r.Remembered > 0 {
			w.Line("it continues the remembered checkpoint of %d entries", r.Remembered)
		}
		return
	}
	for _, p := range r.Problems {
		w.Line("%s", p)
	}
	w.Line("the audit log does NOT verify")
}
