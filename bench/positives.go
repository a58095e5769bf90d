package main

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf16"
)

var (
	ruleBegins = regexp.MustCompile(`(?m)^\s*(?:(?:private|global)\s+)*rule\s+\w+`)
	textString = regexp.MustCompile(`(?m)^\s*\$\w*\s*=\s*"((?:[^"\\\n]|\\.)*)"(.*)$`)
	hexString  = regexp.MustCompile(`(?m)^\s*\$\w*\s*=\s*\{([0-9A-Fa-f?\s]+)\}`)
)

// positives writes files that many rules match: for every n-th rule one with
// all its plain strings, and the same behind the first bytes of a PE and of an
// ELF file. They are harmless: strings without the code around them.
func (r *ruleset) positives(dir string, every int) (files int, err error) {
	n := 0
	for _, path := range r.sources() {
		text, err := os.ReadFile(path)
		if err != nil {
			return 0, fmt.Errorf("making files that match: %w", err)
		}
		begins := ruleBegins.FindAllIndex(text, -1)
		for i, b := range begins {
			end := len(text)
			if i+1 < len(begins) {
				end = begins[i+1][0]
			}
			content := strung(string(text[b[0]:end]))
			if n++; n%every != 0 || len(content) == 0 {
				continue
			}
			for _, head := range []string{"", "MZ", "\x7fELF\x02\x01\x01"} {
				name := filepath.Join(dir, fmt.Sprintf("%05d", files))
				if err := os.WriteFile(name, append([]byte(head), content...), 0o644); err != nil {
					return 0, fmt.Errorf("making files that match: %w", err)
				}
				files++
			}
		}
	}
	return files, nil
}

// strung joins the plain strings of a rule.
func strung(rule string) []byte {
	var b []byte
	for _, m := range textString.FindAllStringSubmatch(rule, -1) {
		s, err := strconv.Unquote(`"` + m[1] + `"`)
		if err != nil {
			continue // an escape that only YARA knows
		}
		if strings.Contains(m[2], "wide") && !strings.Contains(m[2], "ascii") {
			for _, u := range utf16.Encode([]rune(s)) {
				b = append(b, byte(u), byte(u>>8))
			}
			b = append(b, "\n\x00"...)
			continue
		}
		b = append(append(b, s...), '\n')
	}
	for _, m := range hexString.FindAllStringSubmatch(rule, -1) {
		if raw, err := hex.DecodeString(strings.ReplaceAll(strings.Join(strings.Fields(m[1]), ""), "?", "0")); err == nil {
			b = append(append(b, raw...), '\n')
		}
	}
	return b
}
