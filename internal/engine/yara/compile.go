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
		good, err := out.check(f)
		if err != nil {
			return nil, err
		}
		for _, class := range ruleset.Classes {
			keep := f.Select(class, func(r *ruleset.Rule) bool { return good[r] })
			if len(keep) == 0 {
				continue
			}
			// A namespace per file: names may repeat between files, and a
			// global rule decides about its own file only.
			c := compilers[class]
			if err := c.AddString(f.Text(keep, class), fmt.Sprintf("%d", i)); err != nil {
				return nil, fmt.Errorf("compiling rules of %s for class %s: %s", f.Name, class, firstFault(c, err).Text)
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

// Write writes the compiled rules of a class in libyara's format.
func (c *Compiled) Write(class ruleset.Class, w io.Writer) error {
	if err := c.sets[class].Write(w); err != nil {
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

// check compiles a file's rules alone and returns those that compile.
func (c *Compiled) check(f *ruleset.File) (good map[*ruleset.Rule]bool, err error) {
	good = map[*ruleset.Rule]bool{}
	if len(f.Rules) == 0 {
		return good, nil
	}
	refuses := false
	all := map[*ruleset.Rule]bool{}
	for _, r := range f.Rules {
		all[r] = true
		refuses = refuses || refusedModule(r) != ""
	}
	if !refuses {
		fault, err := c.try(f, all)
		if err != nil || fault == nil {
			return all, err
		}
	}
	var lost *ruleset.Rule
	for _, r := range f.Rules {
		fault, err := c.checkRule(f, r, good)
		if err != nil {
			return nil, err
		}
		if fault == nil {
			good[r] = true
			continue
		}
		c.fault(api.ImportError{File: f.Name, Line: fault.Line, Rule: r.Name, Text: fault.Text})
		if r.Global {
			lost = r
		}
	}
	if lost == nil {
		return good, nil
	}
	// Without their global rule the others would match what their author
	// excluded.
	for _, r := range f.Rules {
		if good[r] {
			c.fault(api.ImportError{File: f.Name, Line: r.Line, Rule: r.Name,
				Text: fmt.Sprintf("left out with the file's global rule %q", lost.Name)})
		}
	}
	return map[*ruleset.Rule]bool{}, nil
}

// checkRule compiles one rule with what it needs; all that must have been
// found good before.
func (c *Compiled) checkRule(f *ruleset.File, r *ruleset.Rule, good map[*ruleset.Rule]bool) (*goyara.CompilerMessage, error) {
	if m := refusedModule(r); m != "" {
		return &goyara.CompilerMessage{Line: r.Line, Text: fmt.Sprintf("the module %q is not available in the engine", m)}, nil
	}
	keep := map[*ruleset.Rule]bool{r: true}
	for _, n := range r.Needs {
		if !good[n] {
			return &goyara.CompilerMessage{Line: r.Line, Text: fmt.Sprintf("needs the rule %q, which was left out", n.Name)}, nil
		}
	}
	f.Close(keep)
	return c.try(f, keep)
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

// try compiles the kept rules and throws the result away. It returns the first
// fault; warnings are recorded if there is none.
func (c *Compiled) try(f *ruleset.File, keep map[*ruleset.Rule]bool) (*goyara.CompilerMessage, error) {
	compiler, err := newCompiler()
	if err != nil {
		return nil, err
	}
	defer compiler.Destroy()
	err = compiler.AddString(f.Original(keep), "")
	if err != nil {
		return firstFault(compiler, err), nil
	}
	rules, err := compiler.GetRules()
	if err != nil {
		return firstFault(compiler, err), nil
	}
	rules.Destroy()
	for _, w := range compiler.Warnings {
		if len(c.Warnings) < maxFaults {
			c.Warnings = append(c.Warnings, api.ImportError{File: f.Name, Line: w.Line, Rule: w.Rule, Text: w.Text})
		}
	}
	return nil, nil
}

func firstFault(c *goyara.Compiler, err error) *goyara.CompilerMessage {
	if len(c.Errors) > 0 {
		return &c.Errors[0]
	}
	return &goyara.CompilerMessage{Line: 1, Text: err.Error()}
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
