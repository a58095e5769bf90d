package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/config"
	"github.com/lazaret/lazaret/internal/threat"
)

type scanFlags struct {
	request  api.ScanRequest
	noDaemon bool
	progress bool
	detach   bool
	failOn   string
}

func (a *app) scanCommand() *cobra.Command {
	f := scanFlags{progress: true}
	c := &cobra.Command{
		Use: "scan [PATH…]", Short: "Inspect files, directories, archives, a container or an image",
		Long: `Inspect files, directories and archives, the files of a running container
(--container), or a container image in an OCI layout directory or a tar file
(--image; each layer is inspected once). - is standard input.

The running daemon does the work if there is one: its verdict cache answers for
what it has seen. Otherwise this command starts the sandboxed engine itself.

Table output shows what is not clean and a summary; json, jsonl and sarif carry
every object with path, SHA-256, size, verdict, reasons and detections. Members
of archives have the archive's path, "!/" and their own.

Exit codes: 0 clean, 1 a threat was found, 2 error, 3 something could not be
inspected completely (the reason is printed).`,
		Example: `  lazaret scan /srv /home
  lazaret scan --container web-1
  lazaret scan --image image.tar -o sarif >image.sarif
  lazaret scan -o jsonl / | jq 'select(.verdict == "partial") | .reasons'
  tar c . | lazaret scan -`,
		RunE: func(c *cobra.Command, args []string) error { return a.scan(c.Context(), &f, args) },
	}
	fl := c.Flags()
	fl.StringVar(&f.request.Container, "container", "", "a running container, by name or id")
	fl.StringVar(&f.request.Image, "image", "", "an OCI image: layout directory or tar file")
	fl.StringVar(&f.request.Priority, "priority", "", "on-demand (default) or scheduled")
	fl.BoolVar(&f.request.All, "all", false, "show clean objects in the table as well")
	fl.BoolVar(&f.noDaemon, "no-daemon", false, "do not use a running daemon")
	fl.BoolVar(&f.progress, "progress", true, "draw progress on a terminal")
	fl.BoolVar(&f.detach, "detach", false, "start the scan in the daemon and return; it survives restarts")
	fl.StringVar(&f.failOn, "fail-on", "suspicious", "verdict from which on the exit code is 1: suspicious or malicious")
	return c
}

func (a *app) scan(ctx context.Context, f *scanFlags, args []string) error {
	if len(args) == 0 && f.request.Container == "" && f.request.Image == "" {
		return usageError{errors.New("nothing to scan: name paths, --container or --image")}
	}
	if f.failOn != "suspicious" && f.failOn != "malicious" {
		return usageError{fmt.Errorf("--fail-on %q is neither suspicious nor malicious", f.failOn)}
	}
	c, err := a.config()
	if err != nil {
		return err
	}
	names, err := absolute(&f.request, args)
	if err != nil {
		return err
	}
	if f.detach {
		return a.startScan(ctx, f.request)
	}
	// Formats for machines carry every object.
	f.request.All = f.request.All || a.format != output.Table
	bar := newProgress(a.Stderr, a.Terminal && f.progress && !a.quiet)
	report := newScanReport(a.Stdout, a.format, a.Version, names)
	sum, err := a.runScan(ctx, c, f, bar, func(l api.ScanLine) error {
		bar.hide()
		return report.line(l)
	})
	bar.end()
	if err != nil {
		return errors.Join(err, report.abort())
	}
	if err := report.end(&sum); err != nil {
		return err
	}
	return scanExit(&sum, f.failOn)
}

func scanExit(s *api.ScanSummary, failOn string) error {
	switch {
	case s.Malicious > 0 || (s.Suspicious > 0 && failOn == "suspicious"):
		return exitError(ExitThreat)
	case s.Partial > 0 || s.Errors > 0:
		return exitError(ExitPartial)
	}
	return nil
}

// absolute makes the request's paths absolute, for the daemon, and returns how
// to show them as they were given.
func absolute(r *api.ScanRequest, args []string) (names, error) {
	var n names
	for _, p := range args {
		if p == "-" {
			r.Paths = append(r.Paths, p)
			continue
		}
		abs, err := filepath.Abs(p)
		if err != nil {
			return nil, fmt.Errorf("resolving %s: %w", p, err)
		}
		r.Paths = append(r.Paths, abs)
		n = append(n, [2]string{abs, filepath.Clean(p)})
	}
	if r.Image != "" {
		abs, err := filepath.Abs(r.Image)
		if err != nil {
			return nil, fmt.Errorf("resolving %s: %w", r.Image, err)
		}
		n = append(n, [2]string{abs, filepath.Clean(r.Image)})
		r.Image = abs
	}
	return n, nil
}

// names maps absolute paths back to what the user typed.
type names [][2]string

func (n names) show(path string) string {
	for _, p := range n {
		rest, ok := strings.CutPrefix(path, p[0])
		if ok && (rest == "" || rest[0] == '/' || rest[0] == '!' || p[0] == "/") {
			if p[1] == "/" {
				return path
			}
			return p[1] + rest
		}
	}
	return path
}

// runScan uses the daemon if it answers, else scans in this process.
func (a *app) runScan(ctx context.Context, c config.Config, f *scanFlags, bar *progress, sink func(api.ScanLine) error) (api.ScanSummary, error) {
	handle := func(l api.ScanLine) error {
		if l.Kind == "progress" {
			bar.update(l.Summary, l.Path)
			return nil
		}
		return sink(l)
	}
	if !f.noDaemon && !slices.Contains(f.request.Paths, "-") {
		sum, err := a.daemonScan(ctx, c, f.request, bar.on, handle)
		if !errors.Is(err, api.ErrUnreachable) {
			return sum, err
		}
	}
	if a.Local == nil {
		return api.ScanSummary{}, errors.New("this build cannot scan without the daemon")
	}
	return a.Local.Scan(ctx, c, f.request, handle)
}

// daemonScan streams the lines of the node's local API.
func (a *app) daemonScan(ctx context.Context, c config.Config, r api.ScanRequest, progress bool, sink func(api.ScanLine) error) (api.ScanSummary, error) {
	var sum api.ScanSummary
	client, err := api.NewClient(api.ClientConfig{Socket: c.NodeSocket(), UserAgent: "lazaret/" + a.Version})
	if err != nil {
		return sum, err
	}
	defer client.Close()
	body, err := jsonBody(r)
	if err != nil {
		return sum, err
	}
	opts := []api.Option{api.Header("Content-Type", "application/json")}
	if progress {
		opts = append(opts, api.Query("progress", "1"))
	}
	resp, err := client.Open(ctx, http.MethodPost, "/v1/scan", body, opts...)
	if err != nil {
		return sum, err
	}
	defer resp.Body.Close()
	d := json.NewDecoder(resp.Body)
	for {
		var l api.ScanLine
		switch err := d.Decode(&l); {
		case errors.Is(err, io.EOF):
			return sum, errors.New("the daemon ended the scan before its summary; see its log")
		case err != nil && ctx.Err() != nil:
			return sum, ctx.Err()
		case err != nil:
			return sum, fmt.Errorf("reading scan results: %w", err)
		}
		switch l.Kind {
		case "summary":
			return *l.Summary, nil
		case "error":
			return sum, errors.New(l.Path)
		}
		if err := sink(l); err != nil {
			return sum, err
		}
	}
}

// startScan hands the scan to the manager as a job.
func (a *app) startScan(ctx context.Context, r api.ScanRequest) error {
	return a.withClient(func(client *api.Client) error {
		var s api.Scan
		if err := client.Post(ctx, api.Prefix+"/scans", r, &s); err != nil {
			return err
		}
		return a.print(s, func(w *output.Writer) {
			w.Line("scan %s started; see it with: lazaret scans", s.ID)
		})
	})
}

func (a *app) scansCommand() *cobra.Command {
	return &cobra.Command{
		Use: "scans", Short: "List scans that run in the daemon, with their progress", Args: cobra.NoArgs,
		Example: `  lazaret scan --detach /srv && lazaret scans`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.Scan](c.Context(), client, api.Prefix+"/scans", 100)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("ID", "STATE", "STARTED", "FILES", "THREATS", "PARTIAL", "TARGET")
					for _, s := range list {
						w.Row(s.ID, s.State, short(s.Started), s.Summary.Files, s.Summary.Malicious+s.Summary.Suspicious, s.Summary.Partial, targetOf(&s.Request))
					}
				})
			})
		},
	}
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

func verdictText(l *api.ScanLine) string {
	var parts []string
	for _, d := range l.Detections {
		parts = append(parts, d.Signature+" ("+string(d.Severity)+")")
	}
	for _, r := range l.Reasons {
		parts = append(parts, r.Text)
	}
	if len(parts) == 0 && l.Verdict != threat.Clean {
		parts = append(parts, string(l.Verdict))
	}
	return strings.Join(parts, "; ")
}
