package policy

import (
	"strings"
	"unicode/utf8"
)

// matchText reports whether the whole of text matches pattern, in which *
// stands for any run of bytes and ? for one character. The greedy matcher goes back
// to the last star only, so its time is bounded by len(pattern)*len(text).
func matchText(pattern, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p, t
			p++
		case p < len(pattern) && pattern[p] == '?':
			_, width := utf8.DecodeRuneInString(text[t:])
			p++
			t += width
		case p < len(pattern) && pattern[p] == text[t]:
			p++
			t++
		case star >= 0:
			mark++
			p, t = star+1, mark
		default:
			return false
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchPath is matchText over the elements of an absolute path: ** as a whole
// element stands for any number of elements, * and ? stay inside one. A
// relative path, or one with . or .. elements, matches nothing: the kernel
// reports none, so it would come from elsewhere.
func matchPath(pattern, path string) bool {
	if !strings.HasPrefix(pattern, "/") || !strings.HasPrefix(path, "/") || dotted(path) {
		return false
	}
	pattern, path = pattern[1:], path[1:]
	retry, mark := "", ""
	canRetry := false
	for path != "" {
		pe, prest := element(pattern)
		te, trest := element(path)
		switch {
		case pattern != "" && pe == "**":
			retry, mark, canRetry = prest, path, true
			pattern = prest
		case pattern != "" && matchText(pe, te):
			pattern, path = prest, trest
		case canRetry:
			_, mark = element(mark)
			pattern, path = retry, mark
		default:
			return false
		}
	}
	for pattern != "" {
		e, rest := element(pattern)
		if e != "**" {
			return false
		}
		pattern = rest
	}
	return true
}

func element(path string) (first, rest string) {
	first, rest, _ = strings.Cut(path, "/")
	return first, rest
}

func dotted(path string) bool {
	for rest := path[1:]; rest != ""; {
		var e string
		if e, rest = element(rest); e == "." || e == ".." {
			return true
		}
	}
	return false
}
