// Command bench measures what the project promises: every figure against a
// peer's figure, or against the same without protection, measured in the same
// run. It exits 1 if a promise does not hold, 2 if something could not be measured.
//
// It needs root. It runs in mount, process and IPC name spaces of its own, so
// that nothing it mounts or starts outlives it, and puts marks only on file
// systems that it makes in files.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/lazaret/lazaret/bench/report"
)

// errFails is the end of a run in which a promise does not hold.
var errFails = errors.New("a promise does not hold")

// subject is a part that can be selected.
type subject struct {
	name string
	run  func(context.Context, *lab) (*report.Part, error)
}

// parts in the order they run.
var parts = []subject{
	{"access", access}, {"build", build}, {"unpack", unpack}, {"scan", scan}, {"memory", memory},
}

type options struct {
	only   string
	rules  string
	write  string
	json   string
	dir    string
	noFail bool
	quick  bool
}

func main() {
	var o options
	flag.StringVar(&o.only, "only", "", "parts to run, separated by commas: access, build, unpack, scan, memory; default: all")
	flag.StringVar(&o.rules, "rules", "", "directory of YARA rules for scan and memory; default: ../shared/data/yara beside the repository, else the built-in rules")
	flag.StringVar(&o.write, "write", "", "Markdown file whose figures are replaced, docs/benchmarks.md")
	flag.StringVar(&o.json, "json", "", "file for all values as JSON")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "where the working directory is made; needs about 6 GB")
	flag.BoolVar(&o.noFail, "no-fail", false, "exit 0 also if a promise does not hold")
	flag.BoolVar(&o.quick, "quick", false, "few repetitions, to try the program; its figures are not for publishing")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := start(ctx, o)
	var inner exited
	switch {
	case err == nil, errors.Is(err, errFails) && o.noFail:
	case errors.As(err, &inner):
		os.Exit(int(inner)) // it has said why
	default:
		fmt.Fprintln(os.Stderr, "bench:", err)
		if errors.Is(err, errFails) {
			os.Exit(1)
		}
		os.Exit(2)
	}
}

func start(ctx context.Context, o options) error {
	for _, name := range strings.Split(o.only, ",") {
		if o.only != "" && !slices.ContainsFunc(parts, func(p subject) bool { return p.name == name }) {
			return fmt.Errorf("there is no part %q", name)
		}
	}
	work, inside := os.LookupEnv(workEnv)
	if !inside {
		return enclose(ctx, o.dir)
	}
	return run(ctx, o, work)
}

// run measures inside the name spaces.
func run(ctx context.Context, o options, work string) (err error) {
	l, err := newLab(ctx, o, work)
	if err != nil {
		return err
	}
	r := &report.Report{Machine: report.Look(ctx, l.root), Started: time.Now()}
	if err := r.Header(os.Stdout); err != nil {
		return err
	}
	for _, p := range parts {
		if o.only != "" && !slices.Contains(strings.Split(o.only, ","), p.name) {
			continue
		}
		begun := time.Now()
		part, err := p.run(ctx, l)
		err = errors.Join(err, l.clean())
		if err != nil {
			return fmt.Errorf("measuring %s: %w", p.name, err)
		}
		if err := part.Text(os.Stdout); err != nil {
			return err
		}
		fmt.Printf("(%s took %s)\n", p.name, time.Since(begun).Round(time.Second))
		r.Parts = append(r.Parts, part)
	}
	if o.json != "" {
		if err := writeJSON(r, o.json); err != nil {
			return err
		}
	}
	if o.write != "" {
		if err := r.Update(o.write); err != nil {
			return err
		}
	}
	if !r.Holds() {
		return errFails
	}
	return nil
}

func writeJSON(r *report.Report, path string) error {
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return fmt.Errorf("writing values: %w", err)
	}
	return errors.Join(r.JSON(f), f.Close())
}
