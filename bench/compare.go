package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/bench/report"
)

// compare checks that both find the same rules in the same files: a scanner
// that looks at less is not faster.
func compare(ctx context.Context, l *lab, d *daemon, c *corpus, r *ruleset, p *report.Part) error {
	positives, err := l.dir("positives")
	if err != nil {
		return err
	}
	made, err := r.positives(positives, 8)
	if err != nil {
		return err
	}
	theirs, ours := map[string]bool{}, map[string]bool{}
	for _, dir := range []string{c.dir, positives} {
		out, err := output(ctx, "yara", "-C", "-f", "-w", "-r", r.compiled, dir)
		if err != nil {
			return err
		}
		for line := range strings.Lines(string(out)) {
			if rule, path, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " "); ok {
				theirs[rule+" "+path] = true
			}
		}
		if err := d.matches(ctx, dir, "yara", ours); err != nil {
			return err
		}
	}
	missing, extra := without(theirs, ours), without(ours, theirs)
	p.Describe("Both find the same: on the corpus and %d files made of the strings of every eighth rule, yara reports %d matches, we report %d; %d are only yara's, %d only ours (members of archives, which yara does not look into, not counted).",
		made, len(theirs), len(ours), len(missing), len(extra))
	for _, list := range []struct {
		who  string
		what []string
	}{{"yara", missing}, {"lazaret", extra}} {
		if len(list.what) > 0 {
			p.Note("Found only by %s: %s", list.who, strings.ReplaceAll(strings.Join(list.what[:min(len(list.what), 8)], ", "), l.work+"/", ""))
		}
	}
	p.Promise(report.Promise{
		Text: "matches of yara that we miss", Ours: float64(len(missing)), Unit: "matches", Ratio: float64(len(missing)), Limit: 0,
	})
	if len(theirs) == 0 {
		return errors.New("comparing findings: yara matched nothing, so nothing was compared")
	}
	return nil
}

func without(a, b map[string]bool) []string {
	var only []string
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if !b[k] {
			only = append(only, k)
		}
	}
	return only
}

// matches adds "signature path" of all detections of an engine in plain files.
func (d *daemon) matches(ctx context.Context, dir, engine string, to map[string]bool) error {
	return d.lines(ctx, dir, func(l *api.ScanLine) {
		if strings.Contains(l.Path, "!/") {
			return
		}
		for _, x := range l.Detections {
			if x.Engine == engine {
				to[x.Signature+" "+l.Path] = true
			}
		}
	})
}

// lines scans a directory and calls f for each line.
func (d *daemon) lines(ctx context.Context, dir string, f func(*api.ScanLine)) error {
	cmd := d.command(ctx, "scan", "-o", "jsonl", dir)
	var out bytes.Buffer
	cmd.Stdout = &out
	if _, err := timed(cmd, found...); err != nil {
		return err
	}
	lines := bufio.NewScanner(&out)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var l api.ScanLine
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return fmt.Errorf("reading scan results: %w", err)
		}
		f(&l)
	}
	return lines.Err()
}
