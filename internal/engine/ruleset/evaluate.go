package ruleset

import (
	"strings"

	"github.com/VirusTotal/gyp/ast"
)

// A rule's condition is evaluated with the little that is known of every
// object of a class. The result is sound, not complete: "cannot match" is only
// said when libyara, which evaluates the same condition later, could not say
// yes. Semantics of undefined values follow libyara/exec.c of YARA 4.5:
// comparisons and arithmetic with undefined are undefined, "and" takes it for
// false, "or" ignores it, and a rule matches only if its condition is defined
// and true.

type valueKind uint8

const (
	unknown   valueKind = iota // nothing is known
	undefined                  // YARA's undefined
	never                      // false or undefined, we cannot tell which
	known                      // the integer n; booleans are 0 and 1
)

type value struct {
	kind valueKind
	n    int64
}

func boolean(b bool) value {
	if b {
		return value{known, 1}
	}
	return value{known, 0}
}

// no reports that the value is certainly not true, yes that it certainly is.
func (v value) no() bool {
	return v.kind == undefined || v.kind == never || v.kind == known && v.n == 0
}
func (v value) yes() bool { return v.kind == known && v.n != 0 }

// Possible reports whether the rule can match content of the class.
func (f *File) Possible(r *Rule, c Class) bool {
	for _, g := range f.globals {
		if f.value(g, c).no() {
			return false
		}
	}
	return !f.value(r, c).no()
}

// Select returns the rules to compile for a class: those that can match it and
// that allow lets through, with everything they need and the file's global
// rules, which decide about all others. Empty means none.
func (f *File) Select(c Class, allow func(*Rule) bool) map[*Rule]bool {
	keep := map[*Rule]bool{}
	for _, r := range f.Rules {
		// A private rule is never reported: alone it is of no use.
		if !r.Private && allow(r) && f.Possible(r, c) {
			keep[r] = true
		}
	}
	if len(keep) > 0 {
		for _, r := range f.globals {
			keep[r] = true
		}
	}
	f.Close(keep)
	return keep
}

func (f *File) value(r *Rule, c Class) value {
	memo := f.verdict[c]
	if memo == nil {
		memo = map[*Rule]value{}
		f.verdict[c] = memo
	}
	v, ok := memo[r]
	if ok || r.condition == nil {
		return v
	}
	memo[r] = value{} // a rule cannot refer to itself; be safe anyway
	e := evaluation{file: f, rule: r, class: c}
	v = e.of(r.condition.expression, 0)
	memo[r] = v
	return v
}

type evaluation struct {
	file  *File
	rule  *Rule
	class Class
}

// maxNesting bounds the recursion over hostile conditions.
const maxNesting = 2000

func (e *evaluation) of(x ast.Expression, depth int) value {
	if depth++; depth > maxNesting {
		return value{}
	}
	switch x := x.(type) {
	case *ast.Group:
		return e.of(x.Expression, depth)
	case *ast.LiteralInteger:
		return value{known, x.Value}
	case ast.Keyword:
		return e.keyword(x)
	case *ast.Not:
		switch v := e.of(x.Expression, depth); v.kind {
		case known:
			return boolean(v.n == 0)
		case undefined:
			return v
		}
		return value{}
	case *ast.Defined:
		switch v := e.of(x.Expression, depth); v.kind {
		case known:
			return boolean(true)
		case undefined:
			return boolean(false)
		}
		return value{}
	case *ast.Minus:
		v := e.of(x.Expression, depth)
		v.n = -v.n
		return v.strict()
	case *ast.StringIdentifier:
		return e.stringAt(x, depth)
	case *ast.Identifier:
		if other := e.file.byName[x.Identifier]; other != nil && other != e.rule {
			return e.file.value(other, e.class)
		}
		return value{}
	case *ast.MemberAccess, *ast.Subscripting:
		return e.member(x, depth)
	case *ast.FunctionCall:
		return e.call(x, depth)
	case *ast.Operation:
		return e.operation(x, depth)
	case *ast.ForIn:
		return e.loop(x, depth)
	}
	return value{} // other loops, "of", counts, text: not decided here
}

// strict is for operands that are not booleans: "false or undefined" says
// nothing about a number.
func (v value) strict() value {
	if v.kind == never {
		return value{}
	}
	return v
}

func (e *evaluation) keyword(k ast.Keyword) value {
	switch k {
	case ast.KeywordTrue:
		return boolean(true)
	case ast.KeywordFalse:
		return boolean(false)
	}
	return value{}
}

// stringAt decides "$a at OFFSET" for offsets whose bytes are known.
func (e *evaluation) stringAt(x *ast.StringIdentifier, depth int) value {
	p, ok := e.rule.condition.strings[x.Identifier]
	if !ok || x.At == nil {
		return value{}
	}
	at := e.of(x.At, depth)
	if at.kind != known {
		return value{}
	}
	if can, _ := e.class.begins(at.n, p.want, p.mask); !can {
		return value{kind: never}
	}
	return value{}
}

// member decides fields of the modules that describe another class's files:
// outside their format all their fields are undefined (checked against
// libyara by the tests of package yara).
func (e *evaluation) member(x ast.Expression, depth int) value {
	root, field := path(x, depth)
	foreign := (root == "pe" || root == "dotnet") && e.class != PE || root == "elf" && e.class != ELF
	switch {
	case !foreign || field == "" || e.file.byName[root] != nil:
		return value{}
	case field == "is_pe" || field == "is_dotnet":
		return value{kind: never}
	case strings.ToLower(field) == field:
		return value{kind: undefined}
	}
	return value{} // a constant such as pe.MACHINE_AMD64 is always defined
}

// loop decides "for any … in": over nothing it is false, never undefined, and
// it cannot be true if its body cannot.
func (e *evaluation) loop(x *ast.ForIn, depth int) value {
	if x.Quantifier != ast.KeywordAny {
		return value{}
	}
	empty := false
	switch it := x.Iterator.(type) {
	case *ast.Range:
		empty = e.of(it.Start, depth).kind == undefined || e.of(it.End, depth).kind == undefined
	case *ast.MemberAccess:
		empty = e.of(it, depth).kind == undefined
	}
	if empty {
		return boolean(false)
	}
	for _, name := range x.Variables {
		if e.file.byName[name] != nil {
			return value{} // hides a rule: the body cannot be evaluated
		}
	}
	if e.of(x.Condition, depth).no() {
		return value{kind: never}
	}
	return value{}
}

// path returns the first two parts of a.b[c].d(…).
func path(x ast.Expression, depth int) (root, field string) {
	for ; depth < maxNesting; depth++ {
		switch y := x.(type) {
		case *ast.Identifier:
			return y.Identifier, field
		case *ast.MemberAccess:
			x, field = y.Container, y.Member
		case *ast.Subscripting:
			x = y.Array
		case *ast.FunctionCall:
			x = y.Callable
		default:
			return "", ""
		}
	}
	return "", ""
}

func (e *evaluation) call(x *ast.FunctionCall, depth int) value {
	name, isName := x.Callable.(*ast.Identifier)
	if !isName {
		for _, a := range x.Arguments {
			if e.of(a, depth).kind == undefined {
				return value{kind: undefined}
			}
		}
		return e.member(x, depth)
	}
	r, ok := readerOf(name.Identifier)
	if !ok || len(x.Arguments) != 1 {
		return value{}
	}
	magic, at := magics[e.class], e.of(x.Arguments[0], depth)
	if at.kind == undefined {
		return at
	}
	if at.kind != known || at.n < 0 || at.n+int64(r.width) > int64(len(magic)) {
		return value{}
	}
	return value{known, r.value(magic[at.n : at.n+int64(r.width)])}
}
