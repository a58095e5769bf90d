package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/oklog/ulid/v2"
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
		Use: "scan [PATH…]", Short: "Inspect files, directories, archives, a container or an image", Args: cobra.ArbitraryArgs,
		Long: `Inspect files, directories and archives, the files of a running container
(--container), or a container image in an OCI layout directory or a tar file
(--image; each layer is inspected once). - is standard input.

The running daemon does the work if there is one: its verdict cache answers for
what it has seen. Otherwise this command starts the sandboxed engine itself.

Table output shows what is not clean and a summary; json, jsonl and sarif carry
every object with path, SHA-256, size, verdict, reasons and detections. Members
of archives have the archive's path, "!/" and their own.

Symbolic links that are named are followed, those below are not. FIFOs, sockets
and devices are counted as skipped. "Not inspected" is never reported as clean.

Exit codes: 0 clean, 1 a threat was found, 2 error, 3 something could not be
inspected completely (the reason is printed), 130 interrupted.`,
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
	fl.StringVar(&f.request.Node, "node", "", "with --detach: the node that scans, if there are several")
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
	if p := f.request.Priority; p != "" && p != "on-demand" && p != "scheduled" {
		return usageError{fmt.Errorf("--priority %q is neither on-demand nor scheduled", p)}
	}
	if f.noDaemon && f.request.Container != "" {
		return usageError{errors.New("scanning a container needs the daemon: leave out --no-daemon")}
	}
	if f.failOn != "suspicious" && f.failOn != "malicious" {
		return usageError{fmt.Errorf("--fail-on %q is neither suspicious nor malicious", f.failOn)}
	}
	c, err := a.config()
	if err != nil {
		return err
	}
	names, err := resolve(&f.request, args)
	if err != nil {
		return err
	}
	if f.detach {
		if !sendable(&f.request) {
			return usageError{errors.New("--detach takes neither standard input nor paths that are not UTF-8")}
		}
		return a.startScan(ctx, f.request)
	}
	if err := present(&f.request); err != nil {
		return err
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
		return errors.Join(err, report.abort(err))
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

// resolve makes the request's paths absolute and free of symbolic links: the
// service works on the files themselves, a scan follows no link below. It
// returns how to show them as they were given.
func resolve(r *api.ScanRequest, args []string) (names, error) {
	var n names
	one := func(p string) (string, error) {
		abs, err := filepath.Abs(p)
		if err != nil {
			return "", fmt.Errorf("resolving %s: %w", p, err)
		}
		// What does not exist is for the scan to report.
		if real, err := filepath.EvalSymlinks(abs); err == nil {
			abs = real
		}
		n = append(n, shown{output.Valid(abs), output.Valid(filepath.Clean(p))})
		return abs, nil
	}
	for _, p := range args {
		if p != "-" {
			var err error
			if p, err = one(p); err != nil {
				return nil, err
			}
		}
		r.Paths = append(r.Paths, p)
	}
	if r.Image != "" {
		var err error
		if r.Image, err = one(r.Image); err != nil {
			return nil, err
		}
	}
	// The longest first: the nearest of several roots names a file.
	slices.SortStableFunc(n, func(a, b shown) int { return len(b.path) - len(a.path) })
	return n, nil
}

// present refuses targets that are not there: a misspelt name must not look
// like something that could not be read.
func present(r *api.ScanRequest) error {
	paths := r.Paths
	if r.Image != "" {
		paths = append(paths[:len(paths):len(paths)], r.Image)
	}
	for _, p := range paths {
		if p == "-" {
			continue
		}
		if _, err := os.Lstat(p); errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("there is no %s", output.Clean(p))
		}
	}
	return nil
}

// shown is a path and what the user typed for it.
type shown struct{ path, typed string }

// names maps paths back to what the user typed.
type names []shown

func (n names) show(path string) string {
	for _, p := range n {
		rest, ok := strings.CutPrefix(path, p.path)
		switch {
		case !ok:
		case p.path == "/" && rest != "":
			return strings.TrimSuffix(p.typed, "/") + "/" + rest
		case rest == "" || rest[0] == '/' || rest[0] == '!':
			return p.typed + rest
		}
	}
	return path
}

// runScan uses the daemon if it answers, else scans in this process.
func (a *app) runScan(ctx context.Context, c config.Config, f *scanFlags, bar *progress, sink func(api.ScanLine) error) (api.ScanSummary, error) {
	handle := func(l api.ScanLine) error {
		if l.Kind == api.LineProgress {
			bar.update(l.Summary, l.Path)
			return nil
		}
		return sink(l)
	}
	if !f.noDaemon && sendable(&f.request) {
		sum, err := a.daemonScan(ctx, c, f.request, bar.on, handle)
		if !errors.Is(err, api.ErrUnreachable) {
			return sum, err
		}
		if f.request.Container != "" {
			return sum, fmt.Errorf("scanning a container needs the daemon, as root: %w", err)
		}
	}
	if a.Local == nil {
		return api.ScanSummary{}, errors.New("this build cannot scan without the daemon")
	}
	return a.Local.Scan(ctx, c, f.request, handle)
}

// sendable reports whether the daemon can do it: standard input is here, and
// JSON carries no path that is not UTF-8.
func sendable(r *api.ScanRequest) bool {
	return utf8.ValidString(r.Image) &&
		!slices.ContainsFunc(r.Paths, func(p string) bool { return p == "-" || !utf8.ValidString(p) })
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
			return sum, context.Cause(ctx)
		case err != nil:
			return sum, fmt.Errorf("reading scan results: %w", err)
		}
		switch l.Kind {
		case api.LineSummary:
			if l.Summary == nil {
				return sum, errors.New("reading scan results: the summary is empty")
			}
			return *l.Summary, nil
		case api.LineError:
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
		if err := client.Post(ctx, api.Prefix+"/scans", r, &s, api.IdempotencyKey(ulid.Make().String())); err != nil {
			return err
		}
		return a.print(s, func(w *output.Writer) {
			w.Line("scan %s started; see it with: lazaret scans show %s", s.ID, s.ID)
		})
	})
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
