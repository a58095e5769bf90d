package yara

import (
	"fmt"
	"io"
	"sort"

	goyara "github.com/hillu/go-yara/v4"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/ruleset"
)

// externals are variables that rules of the field expect to exist. The engine
// sees content, not names: they are empty strings unless known.
var externals = [...]string{"filename", "filepath", "extension", "filetype", "file_type", "owner", "md5"}

// Compiled is the result of Compile: one set of rules per content class.
type Compiled struct {
	// Rules describes every rule that can be reported, ordered by name.
	Rules []ruleset.Metadata
	// Errors names every rule that was left out, with file and line.
	Errors []api.ImportError
	// Warnings are the compiler's, mostly about slow rules.
	Warnings []api.ImportError
	// Classes counts the rules of each class, helpers included.
	Classes map[ruleset.Class]int

	sets map[ruleset.Class]*goyara.Rules
}

// maxFaults bounds the lists of errors and warnings each.
const maxFaults = 10_000

// Compile compiles sources. A file that does not compile as a whole is
// compiled rule by rule, and only the rules at fault are left out and
// reported. The error is for what is not a source's fault.
func Compile(sources []ruleset.Source) (*Compiled, error) {
	out := &Compiled{Classes: map[ruleset.Class]int{}, sets: map[ruleset.Class]*goyara.Rules{}}
	compilers := map[ruleset.Class]*goyara.Compiler{}
	for _, class := range ruleset.Classes {
		c, err := newCompiler()
		if err != nil {
			return nil, err
		}
		defer c.Destroy()
		compilers[class] = c
	}
	for i, source := range sources {
		f, errs := ruleset.Parse(source)
		out.fault(errs...)
		sieve := newSieve(f)
		if err := sieve.run(); err != nil {
			return nil, err
		}
		out.fault(sieve.faults...)
		out.Warnings = append(out.Warnings, sieve.warnings[:min(len(sieve.warnings), maxFaults-len(out.Warnings))]...)
		for _, class := range ruleset.Classes {
			keep := f.Select(class, func(r *ruleset.Rule) bool { return sieve.good[r] })
			if len(keep) == 0 {
				continue
			}
			// A namespace per file: names may repeat between files, and a
			// global rule decides about its own file only.
			c := compilers[class]
			if err := c.AddString(f.Text(keep, class), fmt.Sprintf("%d", i)); err != nil {
				return nil, fmt.Errorf("compiling rules of %s for class %s: %s", f.Name, class, faults(c, err)[0].Text)
			}
			out.Classes[class] += len(keep)
		}
	}
	described := map[string]bool{}
	for class, c := range compilers {
		rules, err := c.GetRules()
		if err != nil {
			return nil, fmt.Errorf("finishing the rules of class %s: %w", class, err)
		}
		out.sets[class] = rules
		for _, r := range rules.GetRules() {
			key := r.Namespace() + "/" + r.Identifier()
			if !r.IsPrivate() && !described[key] {
				described[key] = true
				out.Rules = append(out.Rules, describe(&r))
			}
		}
	}
	sort.Slice(out.Rules, func(i, j int) bool { return out.Rules[i].Name < out.Rules[j].Name })
	return out, nil
}

// Write writes the compiled rules of a class for Load.
func (c *Compiled) Write(class ruleset.Class, w io.Writer) error {
	if err := writeRules(c.sets[class], w); err != nil {
		return fmt.Errorf("writing the compiled rules of class %s: %w", class, err)
	}
	return nil
}

// Close frees the compiled rules.
func (c *Compiled) Close() {
	for _, r := range c.sets {
		r.Destroy()
	}
	c.sets = nil
}

func (c *Compiled) fault(errs ...api.ImportError) {
	for _, e := range errs {
		if len(c.Errors) < maxFaults {
			c.Errors = append(c.Errors, e)
		}
	}
}

func newCompiler() (*goyara.Compiler, error) {
	c, err := goyara.NewCompiler()
	if err != nil {
		return nil, fmt.Errorf("creating a YARA compiler: %w", err)
	}
	c.DisableIncludes()
	for _, name := range externals {
		if err := c.DefineVariable(name, ""); err != nil {
			c.Destroy()
			return nil, fmt.Errorf("defining the variable %s: %w", name, err)
		}
	}
	return c, nil
}
