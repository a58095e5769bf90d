package yara

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	goyara "github.com/hillu/go-yara/v4"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/ruleset"
	"github.com/lazaret/lazaret/internal/threat"
)

// Scanner matches content against compiled rules. It is an engine.Engine: one
// goroutine at a time.
type Scanner struct {
	sets  [len(ruleset.Classes)]*set
	hits  []goyara.Rule
	count int
}

// set is one class's rules with the scanner that is reused for every object.
type set struct {
	rules   *goyara.Rules
	scanner *goyara.Scanner
}

// softTimeout is what libyara is told when the context has no deadline. It
// only looks at the clock now and then and may overshoot by many times, so
// that whoever runs a Scanner needs a watchdog that can kill.
const softTimeout = 30 * time.Second

// Load reads compiled rules as written by Compiled.Write. Classes without a
// reader have no rules: nothing matches there.
func Load(readers map[ruleset.Class]io.Reader) (*Scanner, error) {
	s := &Scanner{}
	names := map[string]bool{}
	for class, r := range readers {
		rules, err := readRules(r)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("loading the compiled rules of class %s: %w", class, err)
		}
		s.sets[class] = &set{rules: rules}
		list := rules.GetRules()
		if len(list) == 0 {
			continue // a scan would still walk the data for nothing
		}
		for _, r := range list {
			if !r.IsPrivate() {
				names[r.Namespace()+"/"+r.Identifier()] = true
			}
		}
		scanner, err := goyara.NewScanner(rules)
		if err != nil {
			s.Close()
			return nil, fmt.Errorf("creating a scanner for class %s: %w", class, err)
		}
		s.sets[class].scanner = scanner.SetFlags(goyara.ScanFlagsFastMode).SetCallback(s)
	}
	s.count = len(names)
	return s, nil
}

// Name is the engine's name in detections.
func (s *Scanner) Name() string { return "yara" }

// Close frees rules and scanners.
func (s *Scanner) Close() {
	for i, x := range s.sets {
		if x == nil {
			continue
		}
		if x.scanner != nil {
			x.scanner.Destroy()
		}
		x.rules.Destroy()
		s.sets[i] = nil
	}
}

// Inspect implements engine.Engine. Running out of time is an error that
// wraps context.DeadlineExceeded.
func (s *Scanner) Inspect(ctx context.Context, c *engine.Content) ([]threat.Detection, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	x := s.sets[ruleset.ClassOf(c.Data)]
	if x == nil || x.scanner == nil {
		return nil, nil
	}
	timeout := softTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = time.Until(deadline)
	}
	// libyara counts whole seconds and takes 0 for no limit.
	x.scanner.SetTimeout(max(timeout.Round(time.Second), time.Second))
	s.hits = s.hits[:0]
	if err := x.scanner.ScanMem(c.Data); err != nil {
		return nil, scanError(err)
	}
	if len(s.hits) == 0 {
		return nil, nil
	}
	out := make([]threat.Detection, 0, len(s.hits))
	for i := range s.hits {
		m := describe(&s.hits[i])
		out = append(out, threat.Detection{
			Signature: m.Name, Engine: s.Name(), Severity: m.Severity, Technique: m.Technique,
			Description: m.Description, Author: m.Author, Reference: m.Reference,
		})
	}
	return out, nil
}

// maxHits bounds the detections of one object; real objects match a handful.
const maxHits = 64

// RuleMatching implements goyara.ScanCallback.
func (s *Scanner) RuleMatching(_ *goyara.ScanContext, r *goyara.Rule) (abort bool, err error) {
	if !r.IsPrivate() && len(s.hits) < maxHits {
		s.hits = append(s.hits, *r)
	}
	return false, nil
}

// errScanTimeout is ERROR_SCAN_TIMEOUT of libyara/include/yara/error.h.
const errScanTimeout = 26

func scanError(err error) error {
	var e goyara.Error
	if errors.As(err, &e) && e.Code == errScanTimeout {
		return fmt.Errorf("matching YARA rules (last rule %s): %w", e.RuleIdentifier, context.DeadlineExceeded)
	}
	return fmt.Errorf("matching YARA rules: %w", err)
}

// describe reads a rule's meta section.
func describe(r *goyara.Rule) ruleset.Metadata {
	m := ruleset.NewMetadata(r.Identifier())
	for _, entry := range r.Metas() {
		m.Set(entry.Identifier, entry.Value)
	}
	return m
}
