package ruleset

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/lazaret/lazaret/api"
)

// The lexical rules are those of YARA 4.5 (libyara/lexer.l, hex_lexer.l): the
// only things that can hide a brace are comments, quoted strings and regular
// expressions, and a slash that does not begin a comment always begins a
// regular expression (division is written with a backslash).

// word is an identifier inside a rule, with a trailing * if it stands for all
// rules that begin with it.
type word struct {
	text     string
	start    int
	wildcard bool
}

type tokenKind uint8

const (
	tokenEOF tokenKind = iota
	tokenWord
	tokenString // text is the content between the quotes
	tokenOther  // one byte of punctuation; a regular expression counts as '/'
)

type token struct {
	kind       tokenKind
	text       string
	start, end int
	line       int
}

type lexer struct {
	text []byte
	pos  int
	line int
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}

// next returns the next token; comments and white space are skipped. An
// unterminated string or regular expression ends with its line, as the
// compiler will complain about it anyway.
func (l *lexer) next() token {
	for l.pos < len(l.text) {
		c := l.text[l.pos]
		switch {
		case c == '\n':
			l.line++
			l.pos++
		case c == ' ' || c == '\t' || c == '\r':
			l.pos++
		case l.has("//"):
			if i := bytes.IndexByte(l.text[l.pos:], '\n'); i >= 0 {
				l.pos += i
			} else {
				l.pos = len(l.text)
			}
		case l.has("/*"):
			end := len(l.text)
			if i := bytes.Index(l.text[l.pos+2:], []byte("*/")); i >= 0 {
				end = l.pos + 2 + i + 2
			}
			l.line += bytes.Count(l.text[l.pos:end], []byte("\n"))
			l.pos = end
		default:
			return l.token(c)
		}
	}
	return token{kind: tokenEOF, start: l.pos, end: l.pos, line: l.line}
}

func (l *lexer) has(prefix string) bool { return bytes.HasPrefix(l.text[l.pos:], []byte(prefix)) }

func (l *lexer) token(c byte) token {
	t := token{kind: tokenOther, start: l.pos, line: l.line}
	switch {
	case c == '"' || c == '/':
		if c == '"' {
			t.kind = tokenString
		}
		l.pos++
		for l.pos < len(l.text) && l.text[l.pos] != c && l.text[l.pos] != '\n' {
			if l.text[l.pos] == '\\' && l.pos+1 < len(l.text) && l.text[l.pos+1] != '\n' {
				l.pos++
			}
			l.pos++
		}
		t.text = string(l.text[t.start+1 : l.pos])
		if l.pos < len(l.text) && l.text[l.pos] == c {
			l.pos++
		}
		if c == '/' {
			t.text = "/"
		}
	case isWord(c):
		t.kind = tokenWord
		for l.pos < len(l.text) && isWord(l.text[l.pos]) {
			l.pos++
		}
		t.text = string(l.text[t.start:l.pos])
	default:
		l.pos++
		t.text = string(c)
	}
	t.end = l.pos
	return t
}

// split finds imports and rules. It reports what it cannot read.
func (f *File) split() (errs []api.ImportError) {
	l := &lexer{text: f.text, line: 1}
	var first *token // first keyword of a rule whose modifiers were read
	var private, global bool
	for {
		t := l.next()
		if first == nil {
			private, global = false, false
		}
		switch {
		case t.kind == tokenEOF:
			if first != nil {
				errs = append(errs, f.fault(first.line, "", "the file ends inside a rule"))
			}
			return errs
		case t.kind == tokenWord && (t.text == "private" || t.text == "global"):
			private, global = private || t.text == "private", global || t.text == "global"
			if first == nil {
				first = &t
			}
			continue
		case t.kind == tokenWord && t.text == "rule":
			if first == nil {
				first = &t
			}
			if err := f.rule(l, *first, private, global); err != nil {
				errs = append(errs, *err)
			}
		case t.kind == tokenWord && (t.text == "import" || t.text == "include"):
			name := l.next()
			if name.kind != tokenString {
				errs = append(errs, f.fault(t.line, "", t.text+" without a quoted name"))
				l.pos, l.line = name.start, name.line
				break
			}
			if t.text == "include" {
				errs = append(errs, f.fault(t.line, "", fmt.Sprintf("include %q refused: import the included file itself", name.text)))
				break
			}
			f.Imports = append(f.Imports, Import{Module: name.text, Line: t.line, span: span{t.start, name.end}})
		default:
			errs = append(errs, f.fault(t.line, "", fmt.Sprintf("unexpected %q outside a rule", t.text)))
			l.resync(t.end, t.line)
		}
		first = nil
	}
}

// rule reads from behind the keyword "rule" to the rule's closing brace.
func (f *File) rule(l *lexer, first token, private, global bool) *api.ImportError {
	name := l.next()
	r := &Rule{Name: name.text, Line: first.line, Private: private, Global: global, span: span{start: first.start}}
	fail := func(text string) *api.ImportError {
		l.resync(name.start, name.line)
		e := f.fault(first.line, r.Name, text)
		return &e
	}
	if name.kind != tokenWord || name.text[0] >= '0' && name.text[0] <= '9' {
		r.Name = ""
		return fail("a rule without a name")
	}
	depth, last := 0, token{}
	for {
		t := l.next()
		switch {
		case t.kind == tokenEOF:
			return fail("the rule has no end: a brace, quote or comment is not closed")
		case t.kind == tokenWord:
			// What follows a dot is a member, what follows $ # @ ! a string.
			if last.end != t.start || !strings.Contains(".$#@!", last.text) || last.text == "" {
				r.words = append(r.words, word{text: t.text, start: t.start})
			}
		case t.text == "*" && last.kind == tokenWord && last.end == t.start && len(r.words) > 0:
			r.words[len(r.words)-1].wildcard = true
		case t.kind == tokenOther && t.text == ":" && depth == 1 && last.text == "condition" && last.kind == tokenWord:
			r.condStart = t.end
		case t.kind == tokenOther && t.text == "{":
			depth++
		case t.kind == tokenOther && t.text == "}":
			depth--
			if depth == 0 {
				r.end, r.EndLine = t.end, t.line
				if f.byName[r.Name] != nil {
					e := f.fault(r.Line, r.Name, fmt.Sprintf("a rule of this name is already in line %d", f.byName[r.Name].Line))
					return &e
				}
				f.byName[r.Name] = r
				f.Rules = append(f.Rules, r)
				if r.Global {
					f.globals = append(f.globals, r)
				}
				return nil
			}
			if depth < 0 {
				return fail("a closing brace before the rule's opening one")
			}
		}
		last = t
	}
}

// resync continues behind damage: at the next line that begins like a rule.
func (l *lexer) resync(pos, line int) {
	l.pos, l.line = pos, line
	for {
		i := bytes.IndexByte(l.text[l.pos:], '\n')
		if i < 0 {
			l.pos = len(l.text)
			return
		}
		l.pos += i + 1
		l.line++
		for _, keyword := range []string{"rule ", "private ", "global "} {
			if l.has(keyword) {
				return
			}
		}
	}
}
