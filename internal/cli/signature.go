package cli

import (
	"archive/tar"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/threat"
)

func (a *app) signatureCommand() *cobra.Command {
	c := &cobra.Command{Use: "signature", Short: "Rules and hash lists, published as signed bundles", Example: `  lazaret signature list`}
	c.AddCommand(a.signatureList(), a.signatureShow(), a.signatureImport(), a.signatureRollback())
	return c
}

func (a *app) signatureList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List bundles, newest first", Args: cobra.NoArgs,
		Example: `  lazaret signature list`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.Bundle](c.Context(), client, api.Prefix+"/signatures", 0)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("EPOCH", "ACTIVE", "RULES", "HASHES", "CREATED", "BY", "COMMENT")
					for _, b := range list {
						w.Row(b.Epoch, yes(b.Active), b.Rules, b.Hashes, short(b.Created), b.By, b.Comment)
					}
				})
			})
		},
	}
}

func (a *app) signatureShow() *cobra.Command {
	return &cobra.Command{
		Use: "show [EPOCH]", Short: "Show a bundle, the active one by default", Args: cobra.MaximumNArgs(1),
		Example: `  lazaret signature show
  lazaret signature show 12 -o yaml`,
		RunE: func(c *cobra.Command, args []string) error {
			var want threat.Epoch
			if len(args) == 1 {
				n, err := parseEpoch(args[0])
				if err != nil {
					return err
				}
				want = n
			}
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.Bundle](c.Context(), client, api.Prefix+"/signatures", 0)
				if err != nil {
					return err
				}
				for _, b := range list {
					if b.Epoch == want || (len(args) == 0 && b.Active) {
						return a.print(b, func(w *output.Writer) { drawBundle(w, &b) })
					}
				}
				if len(args) == 0 {
					return errors.New("no bundle is active")
				}
				return fmt.Errorf("there is no bundle %d", want)
			})
		},
	}
}

func drawBundle(w *output.Writer, b *api.Bundle) {
	w.Row("Bundle", b.Epoch)
	w.Row("Active", yes(b.Active))
	w.Row("Rules", b.Rules)
	w.Row("Hashes", b.Hashes)
	w.Row("Published", short(b.Created)+" by "+b.By)
	if b.Comment != "" {
		w.Row("Comment", b.Comment)
	}
	if b.RollbackOf != 0 {
		w.Row("Repeats", fmt.Sprintf("the content of bundle %d", b.RollbackOf))
	}
}

func parseEpoch(s string) (threat.Epoch, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 {
		return 0, usageError{fmt.Errorf("EPOCH %q is not a bundle's number", s)}
	}
	return threat.Epoch(n), nil
}

func (a *app) signatureImport() *cobra.Command {
	var comment string
	var dryRun bool
	c := &cobra.Command{
		Use: "import PATH…", Short: "Import YARA rules and hash lists", Args: cobra.MinimumNArgs(1),
		Long: `Import files or directories: YARA sources (.yar, .yara), hash lists (plain, CSV
as MalwareBazaar publishes it), ClamAV .hdb, .hsb, .hdu. Rules that do not
compile are reported with file and line and left out. The new bundle is
activated only after a self-test on known-bad and known-good files. A source of
the same name is replaced.

Exit codes: 0 published (with the refused rules listed), 2 not published, or
with --dry-run something would be refused.`,
		Example: `  lazaret signature import rules/ hashes.csv --comment "feed of today"
  lazaret signature import --dry-run rules/new.yar`,
		RunE: func(c *cobra.Command, args []string) error {
			r, w := io.Pipe()
			defer r.Close()
			packed := make(chan error, 1)
			go func() {
				err := packSources(w, args)
				w.CloseWithError(err)
				packed <- err
			}()
			return a.withClient(func(client *api.Client) error {
				var rep api.ImportReport
				opts := []api.Option{api.Header("Content-Type", "application/x-tar"), api.Query("comment", comment)}
				if dryRun {
					opts = append(opts, api.Query("dry_run", "true"))
				}
				err := client.Post(c.Context(), api.Prefix+"/signatures/import", io.Reader(r), &rep, opts...)
				r.Close() // so that packing ends, also if nobody read
				if reading := <-packed; reading != nil && !errors.Is(reading, io.ErrClosedPipe) {
					return reading
				}
				if err != nil {
					return err
				}
				if err := a.print(rep, func(w *output.Writer) { drawImport(w, &rep) }); err != nil {
					return err
				}
				if failed := rep.SelfTest != "passed" || len(rep.Errors) > 0; failed && rep.Bundle == nil {
					return exitError(ExitError)
				}
				return nil
			})
		},
	}
	c.Flags().StringVar(&comment, "comment", "", "what this is, for the list of bundles")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "compile and self-test, publish nothing")
	return c
}

func drawImport(w *output.Writer, r *api.ImportReport) {
	for _, e := range r.Errors {
		at := fmt.Sprintf("%s:%d", e.File, e.Line)
		if e.Rule != "" {
			at += " rule " + e.Rule
		}
		w.Line("%s: %s", at, e.Text)
	}
	w.Line("%d rules and %d hashes taken, %d refused; self-test %s", r.Rules, r.Hashes, len(r.Errors), r.SelfTest)
	if r.Bundle != nil {
		w.Line("published as bundle %d", r.Bundle.Epoch)
	}
}

// packSources writes files and directories as a tar stream. Names start with
// the last element of what the user typed, so that errors name it.
func packSources(to io.Writer, paths []string) error {
	t := tar.NewWriter(to)
	for _, root := range paths {
		abs, err := filepath.Abs(root)
		if err != nil {
			return fmt.Errorf("reading %s: %w", root, err)
		}
		err = filepath.WalkDir(abs, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			name, err := filepath.Rel(filepath.Dir(abs), path)
			if err != nil {
				return err
			}
			return packFile(t, path, name)
		})
		if err != nil {
			return fmt.Errorf("reading %s: %w", root, err)
		}
	}
	return t.Close()
}

func packFile(t *tar.Writer, path, name string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if err := t.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Size: info.Size(), Mode: 0o644, ModTime: info.ModTime()}); err != nil {
		return err
	}
	n, err := io.Copy(t, io.LimitReader(f, info.Size()))
	if err == nil && n != info.Size() {
		err = errors.New("file shrank while it was read")
	}
	return err
}

func (a *app) signatureRollback() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "rollback EPOCH", Short: "Publish an older bundle's content again, as a new bundle", Args: cobra.ExactArgs(1),
		Example: `  lazaret signature rollback 12 --reason "13 matches our own tools"`,
		RunE: func(c *cobra.Command, args []string) error {
			n, err := parseEpoch(args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(client *api.Client) error {
				var b api.Bundle
				if err := client.Post(c.Context(), api.Prefix+"/signatures/rollback", api.RollbackRequest{Epoch: n, Reason: reason}, &b); err != nil {
					return err
				}
				return a.print(b, func(w *output.Writer) { w.Line("bundle %d repeats the content of %d", b.Epoch, n) })
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, in words (required)")
	must(c.MarkFlagRequired("reason"))
	return c
}
