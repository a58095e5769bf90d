package yara

import (
	"fmt"

	goyara "github.com/hillu/go-yara/v4"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/ruleset"
)

// sieve separates a file's rules that compile from those that do not. The file
// is compiled as a whole; if that fails, the rules at the lines of the errors
// are compiled one by one, the guilty are left out and the rest is compiled
// again. Only when that gets nowhere is every rule compiled alone.
type sieve struct {
	file     *ruleset.File
	good     map[*ruleset.Rule]bool
	faults   []api.ImportError
	warnings []api.ImportError
}

func newSieve(f *ruleset.File) *sieve {
	s := &sieve{file: f, good: map[*ruleset.Rule]bool{}}
	for _, r := range f.Rules {
		s.good[r] = true
	}
	return s
}

// maxRounds bounds how often the whole file is compiled.
const maxRounds = 20

// run leaves in good the rules that compile. The error is not the file's fault.
func (s *sieve) run() error {
	for _, r := range s.file.Rules {
		if m := refusedModule(r); m != "" {
			s.drop(r, r.Line, fmt.Sprintf("the module %q is not available in the engine", m))
		}
	}
	s.dropDependents()
	for round := 0; len(s.good) > 0; round++ {
		messages, warnings, err := compileOnly(s.file, s.good)
		if err != nil {
			return err
		}
		if len(messages) == 0 {
			s.warnings = warnings
			return nil
		}
		before := len(s.good)
		if round < maxRounds {
			err = s.try(func(r *ruleset.Rule) bool { return mentioned(r, messages) })
		}
		if err == nil && len(s.good) == before {
			err = s.try(func(*ruleset.Rule) bool { return true })
			if err == nil && len(s.good) == before {
				// Each compiles alone, but not all together.
				s.drop(s.last(), messages[0].Line, messages[0].Text)
			}
		}
		if err != nil {
			return err
		}
		s.dropDependents()
	}
	return nil
}

// try compiles the suspects alone, with what they need, and drops the guilty.
func (s *sieve) try(suspect func(*ruleset.Rule) bool) error {
	for _, r := range s.file.Rules {
		if !s.good[r] || !suspect(r) {
			continue
		}
		keep := map[*ruleset.Rule]bool{r: true}
		s.file.Close(keep)
		messages, _, err := compileOnly(s.file, keep)
		if err != nil {
			return err
		}
		if len(messages) > 0 {
			s.drop(r, messages[0].Line, messages[0].Text)
		}
	}
	return nil
}

func (s *sieve) drop(r *ruleset.Rule, line int, text string) {
	delete(s.good, r)
	s.faults = append(s.faults, api.ImportError{File: s.file.Name, Line: line, Rule: r.Name, Text: text})
}

// dropDependents leaves out what needs a rule that was left out. Without a
// global rule the others would match what their author excluded, so they all
// need it.
func (s *sieve) dropDependents() {
	for _, r := range s.file.Rules {
		if r.Global && !s.good[r] {
			for _, other := range s.file.Rules {
				if s.good[other] {
					s.drop(other, other.Line, fmt.Sprintf("left out with the file's global rule %q", r.Name))
				}
			}
			return
		}
		if !s.good[r] {
			continue
		}
		for _, n := range r.Needs { // they come before r
			if !s.good[n] {
				s.drop(r, r.Line, fmt.Sprintf("needs the rule %q, which was left out", n.Name))
				break
			}
		}
	}
}

func (s *sieve) last() (last *ruleset.Rule) {
	for _, r := range s.file.Rules {
		if s.good[r] {
			last = r
		}
	}
	return last
}

func mentioned(r *ruleset.Rule, messages []goyara.CompilerMessage) bool {
	for _, m := range messages {
		if m.Line >= r.Line && m.Line <= r.EndLine {
			return true
		}
	}
	return false
}

// refusedModule returns the module that keeps a rule from ever matching here.
func refusedModule(r *ruleset.Rule) string {
	for _, m := range r.Modules {
		if m == "magic" {
			return m
		}
	}
	return ""
}

// compileOnly compiles the kept rules and throws the result away.
func compileOnly(f *ruleset.File, keep map[*ruleset.Rule]bool) (messages []goyara.CompilerMessage, warnings []api.ImportError, err error) {
	c, err := newCompiler()
	if err != nil {
		return nil, nil, err
	}
	defer c.Destroy()
	if err := c.AddString(f.Original(keep), ""); err != nil {
		return faults(c, err), nil, nil
	}
	rules, err := c.GetRules()
	if err != nil {
		return faults(c, err), nil, nil
	}
	rules.Destroy()
	for _, w := range c.Warnings {
		warnings = append(warnings, api.ImportError{File: f.Name, Line: w.Line, Rule: w.Rule, Text: w.Text})
	}
	return nil, warnings, nil
}

// faults returns what the compiler complained about, at least one.
func faults(c *goyara.Compiler, err error) []goyara.CompilerMessage {
	if len(c.Errors) > 0 {
		return c.Errors
	}
	return []goyara.CompilerMessage{{Line: 1, Text: err.Error()}}
}
