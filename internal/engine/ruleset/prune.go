package ruleset

import (
	"strings"

	"github.com/VirusTotal/gyp"
)

// Pruning replaces parts of a condition that are decided for a class by "true"
// or "false". Its purpose are rules such as "any of them or pe.imphash() ==
// …": outside of PE files the right side is undefined, and without it the
// module need not be loaded for every text file.
//
// Only operands of "and" and "or" (and of parentheses around those) from the
// condition's root on are replaced: there undefined counts as false, so the
// rule matches exactly when it did before. An operand that mentions a string
// stays, because libyara refuses rules with unused strings.

// edit replaces a span of the file by a word.
type edit struct {
	span
	text string
}

type pruner struct {
	eval   evaluation
	text   []byte
	tokens []token
	edits  []edit
}

// prune returns the edits for a rule in a class and the modules that are still
// mentioned after them.
func (f *File) prune(r *Rule, c Class) (edits []edit, modules []string) {
	if len(r.Modules) == 0 || r.condition == nil {
		return nil, r.Modules
	}
	p := pruner{eval: evaluation{file: f, rule: r, class: c}, text: f.text}
	l := &lexer{text: f.text[:r.end], pos: r.condStart}
	for t := l.next(); t.kind != tokenEOF; t = l.next() {
		p.tokens = append(p.tokens, t)
	}
	if n := len(p.tokens); n > 1 {
		p.reduce(0, n-1, 0) // the last token is the rule's closing brace
	}
	for _, m := range r.Modules {
		if p.mentions(r, m) {
			modules = append(modules, m)
		}
	}
	return p.edits, modules
}

// reduce treats tokens[from:to], one operand.
func (p *pruner) reduce(from, to, depth int) {
	if from >= to || depth > maxNesting {
		return
	}
	if text, ok := p.decided(from, to); ok {
		p.edits = append(p.edits, edit{span{p.tokens[from].start, p.tokens[to-1].end}, text})
		return
	}
	for _, operator := range []string{"or", "and"} {
		if parts := p.split(from, to, operator); len(parts) > 1 {
			for _, part := range parts {
				p.reduce(part.start, part.end, depth+1)
			}
			return
		}
	}
	if p.tokens[from].text == "(" && p.matching(from) == to-1 {
		p.reduce(from+1, to-1, depth+1)
	}
}

// split cuts tokens[from:to] at an operator outside of parentheses. "or" binds
// weakest, then "and"; nothing else joins operands that contain them.
func (p *pruner) split(from, to int, operator string) (parts []span) {
	depth, start := 0, from
	for i := from; i < to; i++ {
		switch t := p.tokens[i]; {
		case t.kind == tokenOther && strings.Contains("([", t.text):
			depth++
		case t.kind == tokenOther && strings.Contains(")]", t.text):
			depth--
		case t.kind == tokenWord && t.text == operator && depth == 0:
			parts = append(parts, span{start, i})
			start = i + 1
		}
	}
	return append(parts, span{start, to})
}

// matching returns the index of the parenthesis that closes the one at i.
func (p *pruner) matching(i int) int {
	depth := 0
	for ; i < len(p.tokens); i++ {
		if p.tokens[i].kind != tokenOther {
			continue
		}
		switch p.tokens[i].text {
		case "(":
			depth++
		case ")":
			depth--
			if depth == 0 {
				return i
			}
		}
	}
	return -1
}

// decided evaluates an operand that mentions no string.
func (p *pruner) decided(from, to int) (string, bool) {
	for i, t := range p.tokens[from:to] {
		mark := t.kind == tokenOther && (strings.Contains("$#@", t.text) ||
			t.text == "!" && from+i+1 < to && p.tokens[from+i+1].kind == tokenWord)
		if mark || t.kind == tokenWord && t.text == "them" {
			return "", false
		}
	}
	text := string(p.text[p.tokens[from].start:p.tokens[to-1].end])
	v := p.evaluate(text)
	switch {
	case v.no():
		return "false", text != "false"
	case v.yes():
		return "true", text != "true"
	}
	return "", false
}

func (p *pruner) evaluate(text string) (v value) {
	defer func() {
		if recover() != nil {
			v = value{}
		}
	}()
	set, err := gyp.ParseString("rule x { condition: " + text + "\n}")
	if err != nil || len(set.Rules) != 1 {
		return value{}
	}
	return p.eval.of(set.Rules[0].Condition, 0)
}

// mentions reports whether a module is still mentioned outside of the edits.
func (p *pruner) mentions(r *Rule, module string) bool {
next:
	for _, w := range r.words {
		if w.text != module {
			continue
		}
		for _, e := range p.edits {
			if w.start >= e.start && w.start < e.end {
				continue next
			}
		}
		return true
	}
	return false
}
