package filetype

import (
	"bytes"
	"unicode/utf8"
)

// byText tells kinds of text from unknown data.
func byText(h []byte) Type {
	for rest := h; ; {
		i := bytes.Index(rest, []byte("<?"))
		if i < 0 {
			break
		}
		if rest = rest[i:]; isPHP(rest) {
			return PHP
		}
		rest = rest[2:]
	}
	if !isText(h) {
		return Data
	}
	s := bytes.TrimLeft(bytes.TrimPrefix(h, []byte("\xef\xbb\xbf")), " \t\r\n")
	switch {
	case hasFold(s, "<?xml"):
		return XML
	case hasFold(s, "<!doctype html"), hasFold(s, "<html"), hasFold(s, "<head"), hasFold(s, "<script"):
		return HTML
	}
	return Text
}

// isPHP reports whether the text at a "<?" opens PHP code.
func isPHP(s []byte) bool { return hasFold(s, "<?php") || hasFold(s, "<?=") }

// hasFold reports whether s starts with the lower-case prefix, ASCII letters
// compared without case.
func hasFold(s []byte, prefix string) bool {
	return len(s) >= len(prefix) && bytes.EqualFold(s[:len(prefix)], []byte(prefix))
}

// isText reports whether the head is UTF-8 without control characters other
// than those of text (tab, line ends, form feed, backspace, escape). A rune cut
// off by the end of the head is no objection.
func isText(h []byte) bool {
	for i := 0; i < len(h); {
		c := h[i]
		if c < utf8.RuneSelf {
			if c < 0x20 && c != '\t' && c != '\n' && c != '\r' && c != '\f' && c != '\b' && c != 0x1b {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRune(h[i:])
		if r == utf8.RuneError && n == 1 {
			return len(h)-i < utf8.UTFMax && !utf8.FullRune(h[i:])
		}
		i += n
	}
	return true
}
