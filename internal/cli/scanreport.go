package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/cli/sarif"
	"github.com/lazaret/lazaret/internal/threat"
)

// scanReport writes a scan's lines as they come.
type scanReport interface {
	line(l api.ScanLine) error
	end(s *api.ScanSummary) error
	// abort finishes what was written when the scan failed.
	abort() error
}

func newScanReport(w io.Writer, f output.Format, version string, n names) scanReport {
	b := bufio.NewWriter(w)
	switch f {
	case output.JSONL:
		e := json.NewEncoder(b)
		e.SetEscapeHTML(false)
		return &jsonlReport{w: b, e: e, names: n}
	case output.SARIF:
		return &sarifReport{w: b, log: sarif.New(version), names: n}
	case output.JSON, output.YAML:
		return &documentReport{w: b, format: f, names: n, Objects: []api.ScanLine{}}
	}
	return &tableReport{w: b, names: n}
}

type jsonlReport struct {
	w     *bufio.Writer
	e     *json.Encoder
	names names
}

func (r *jsonlReport) line(l api.ScanLine) error {
	l.Path = r.names.show(l.Path)
	return r.e.Encode(l)
}

func (r *jsonlReport) end(s *api.ScanSummary) error {
	if err := r.e.Encode(api.ScanLine{Kind: "summary", Summary: s}); err != nil {
		return err
	}
	return r.w.Flush()
}

func (r *jsonlReport) abort() error { return r.w.Flush() }

// documentReport is one JSON or YAML document.
type documentReport struct {
	w       *bufio.Writer
	format  output.Format
	names   names
	Objects []api.ScanLine   `json:"objects"`
	Summary *api.ScanSummary `json:"summary"`
}

func (r *documentReport) line(l api.ScanLine) error {
	l.Path = r.names.show(l.Path)
	r.Objects = append(r.Objects, l)
	return nil
}

func (r *documentReport) end(s *api.ScanSummary) error {
	r.Summary = s
	if err := output.Print(r.w, r.format, r, nil); err != nil {
		return err
	}
	return r.w.Flush()
}

func (r *documentReport) abort() error { return nil } // half a document is none

type sarifReport struct {
	w     *bufio.Writer
	log   *sarif.Log
	names names
}

func (r *sarifReport) line(l api.ScanLine) error {
	l.Path = r.names.show(l.Path)
	r.log.Add(&l)
	return nil
}

func (r *sarifReport) end(s *api.ScanSummary) error {
	r.log.Finish(s)
	e := json.NewEncoder(r.w)
	e.SetIndent("", "  ")
	if err := e.Encode(r.log); err != nil {
		return err
	}
	return r.w.Flush()
}

func (r *sarifReport) abort() error { return nil }

// tableReport prints one line per object that is not clean, then a summary.
type tableReport struct {
	w     *bufio.Writer
	names names
}

func (r *tableReport) line(l api.ScanLine) error {
	path := output.Clean(r.names.show(l.Path))
	var err error
	switch {
	case l.Verdict.Threat():
		_, err = fmt.Fprintf(r.w, "%s: %s: %s\n", path, l.Verdict, output.Clean(verdictText(&l)))
	case l.Verdict == threat.Clean:
		_, err = fmt.Fprintf(r.w, "%s: clean\n", path)
	default:
		_, err = fmt.Fprintf(r.w, "%s: not inspected completely: %s\n", path, output.Clean(verdictText(&l)))
	}
	if err != nil {
		return err
	}
	return r.w.Flush()
}

func (r *tableReport) end(s *api.ScanSummary) error {
	seconds := s.Elapsed.Seconds()
	rate := ""
	if seconds > 0 {
		rate = fmt.Sprintf(" (%.0f files/s, %s/s)", float64(s.Files)/seconds, bytesText(int64(float64(s.Bytes)/seconds)))
	}
	fmt.Fprintf(r.w, "\nInspected:      %d files, %d objects, %s in %s%s\n", s.Files, s.Objects, bytesText(s.Bytes), s.Elapsed.Round(time.Millisecond), rate)
	fmt.Fprintf(r.w, "From the cache: %d files\n", s.Cached)
	fmt.Fprintf(r.w, "Threats:        %d malicious, %d suspicious\n", s.Malicious, s.Suspicious)
	fmt.Fprintf(r.w, "Not inspected:  %d partly, %d errors, %d skipped (not regular files)\n", s.Partial, s.Errors, s.Skipped)
	fmt.Fprintf(r.w, "Signatures:     bundle %d\n", s.Epoch)
	return r.w.Flush()
}

func (r *tableReport) abort() error { return r.w.Flush() }
