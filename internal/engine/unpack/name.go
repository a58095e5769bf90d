package unpack

import (
	"strconv"
	"strings"
	"unicode/utf8"
)

// maxName bounds a member's displayed name in bytes.
const maxName = 512

// Name makes a member's name safe for display and logs: bytes that are not
// UTF-8 become \xNN, control and invisible characters (also those that reorder
// text) are escaped as in Go source, and names longer than 512 bytes lose their
// middle.
func Name(raw string) string {
	if len(raw) > 4*maxName {
		raw = raw[:2*maxName] + raw[len(raw)-2*maxName:]
	}
	clean := true
	for i := 0; i < len(raw) && clean; i++ {
		clean = raw[i] >= 0x20 && raw[i] < 0x7f
	}
	if !clean {
		raw = escape(raw)
	}
	if raw == "" {
		return "(no name)"
	}
	if len(raw) <= maxName {
		return raw
	}
	const half = (maxName - len("…")) / 2
	head, tail := raw[:half], raw[len(raw)-half:]
	for len(head) > 0 && !validEnd(head) {
		head = head[:len(head)-1]
	}
	for len(tail) > 0 && !utf8.RuneStart(tail[0]) {
		tail = tail[1:]
	}
	return head + "…" + tail
}

func escape(raw string) string {
	var b strings.Builder
	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRuneInString(raw[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			const hex = "0123456789abcdef"
			b.WriteString(`\x`)
			b.WriteByte(hex[raw[i]>>4])
			b.WriteByte(hex[raw[i]&15])
		case strconv.IsPrint(r):
			b.WriteString(raw[i : i+n])
		default:
			q := strconv.QuoteRune(r)
			b.WriteString(q[1 : len(q)-1])
		}
		i += n
	}
	return b.String()
}

// validEnd reports whether s does not end in the middle of a rune.
func validEnd(s string) bool {
	r, n := utf8.DecodeLastRuneInString(s)
	return r != utf8.RuneError || n != 1
}
