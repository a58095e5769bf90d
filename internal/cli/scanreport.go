package cli

import (
	"bufio"
	"bytes"
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
	// abort finishes what was written when the scan failed with err.
	abort(err error) error
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
	case output.JSON:
		return &jsonReport{w: b, names: n}
	case output.YAML:
		return &yamlReport{w: b, names: n, Objects: []api.ScanLine{}}
	}
	return &tableReport{w: b, names: n}
}

// jsonlReport writes a line per object, then the summary. A scan that failed
// has no summary.
type jsonlReport struct {
	w     *bufio.Writer
	e     *json.Encoder
	names names
	last  time.Time
}

func (r *jsonlReport) line(l api.ScanLine) error {
	l.Path = r.names.show(l.Path)
	if err := r.e.Encode(l); err != nil {
		return err
	}
	// Who reads along sees results soon, without a system call for each.
	if now := time.Now(); now.Sub(r.last) > 100*time.Millisecond {
		r.last = now
		return r.w.Flush()
	}
	return nil
}

func (r *jsonlReport) end(s *api.ScanSummary) error {
	if err := r.e.Encode(api.ScanLine{Kind: api.LineSummary, Summary: s}); err != nil {
		return err
	}
	return r.w.Flush()
}

func (r *jsonlReport) abort(error) error { return r.w.Flush() }

// jsonReport is one JSON document, written as it grows: {"objects":[…],
// "summary":{…}}. A scan that failed has a null summary.
type jsonReport struct {
	w     *bufio.Writer
	names names
	n     int
}

func (r *jsonReport) line(l api.ScanLine) error {
	l.Path = r.names.show(l.Path)
	before := ",\n  "
	if r.n == 0 {
		before = "{\"objects\": [\n  "
	}
	r.n++
	return r.value(before, l)
}

func (r *jsonReport) value(before string, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return err
	}
	_, err := fmt.Fprintf(r.w, "%s%s", before, bytes.TrimSuffix(b.Bytes(), []byte("\n")))
	return err
}

func (r *jsonReport) end(s *api.ScanSummary) error {
	before := "\n], \"summary\": "
	if r.n == 0 {
		before = "{\"objects\": [], \"summary\": "
	}
	if err := r.value(before, s); err != nil {
		return err
	}
	fmt.Fprintln(r.w, "}")
	return r.w.Flush()
}

func (r *jsonReport) abort(error) error { return r.end(nil) }

// yamlReport is one YAML document, written at the end.
type yamlReport struct {
	w       *bufio.Writer
	names   names
	Objects []api.ScanLine   `json:"objects"`
	Summary *api.ScanSummary `json:"summary"`
}

func (r *yamlReport) line(l api.ScanLine) error {
	l.Path = r.names.show(l.Path)
	r.Objects = append(r.Objects, l)
	return nil
}

func (r *yamlReport) end(s *api.ScanSummary) error {
	r.Summary = s
	if err := output.Print(r.w, output.YAML, r, nil); err != nil {
		return err
	}
	return r.w.Flush()
}

func (r *yamlReport) abort(error) error { return r.end(nil) }

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
	return r.write()
}

func (r *sarifReport) abort(err error) error {
	r.log.Fail(err)
	return r.write()
}

func (r *sarifReport) write() error {
	if err := output.Print(r.w, output.JSON, r.log, nil); err != nil {
		return err
	}
	return r.w.Flush()
}

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

func (r *tableReport) abort(error) error { return r.w.Flush() }
