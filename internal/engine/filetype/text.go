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

// textHead is how many bytes must be text for content to be called so.
const textHead = 1024

// isText reports whether the head is UTF-8 without control characters other
// than those of text (tab, line ends, form feed, backspace, escape). A rune cut
// off by the end of the head is no objection.
func isText(h []byte) bool {
	h = h[:min(len(h), textHead)]
	ascii := true
	for _, c := range h {
		if c < 0x20 && 1<<c&textControls == 0 {
			return false
		}
		ascii = ascii && c < utf8.RuneSelf
	}
	if ascii {
		return true
	}
	for i := 1; i < utf8.UTFMax && i <= len(h); i++ {
		if last := h[len(h)-i:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				h = h[:len(h)-i]
			}
			break
		}
	}
	return utf8.Valid(h)
}

// textControls are the control characters of text as a bit set.
const textControls uint32 = 1<<'\t' | 1<<'\n' | 1<<'\r' | 1<<'\f' | 1<<'\b' | 1<<0x1b
