package threat

import (
	"strings"
	"unicode/utf8"
)

// Printable makes a raw path, which may hold any bytes, the text of a Location:
// bytes that are not UTF-8 become \xNN.
func Printable(raw string) string {
	if utf8.ValidString(raw) {
		return raw
	}
	const hex = "0123456789abcdef"
	var b strings.Builder
	b.Grow(len(raw) + 12)
	for i := 0; i < len(raw); {
		r, n := utf8.DecodeRuneInString(raw[i:])
		if r == utf8.RuneError && n == 1 {
			b.WriteString(`\x`)
			b.WriteByte(hex[raw[i]>>4])
			b.WriteByte(hex[raw[i]&15])
		} else {
			b.WriteString(raw[i : i+n])
		}
		i += n
	}
	return b.String()
}
