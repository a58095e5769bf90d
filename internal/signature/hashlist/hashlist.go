// Package hashlist reads lists of digests of known-bad files as people publish
// them: plain lists, MalwareBazaar's CSV exports and ClamAV's hash databases.
//
// Lists come from strangers: lines are bounded, a bad line is reported with
// file and line and skipped, and no line can stop the rest from being read.
package hashlist

import (
	"bufio"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/threat"
)

// Format is a way to write a list.
type Format string

// The formats.
const (
	// Plain is one digest per line in hexadecimal, MD5, SHA-1 or SHA-256 by
	// length, optionally followed by a space, comma or semicolon and a name.
	// Empty lines and lines that start with # ; or // are comments.
	Plain Format = "plain"
	// CSV is MalwareBazaar's export (https://bazaar.abuse.ch/export/): quoted
	// fields, comments with #, the columns named by the last comment.
	CSV Format = "csv"
	// ClamAV is digest:size:name[:minimum level[:maximum level]], the size may
	// be *, as in .hdb, .hsb, .hdu and .hsu (ClamAV manual, "File hash
	// signatures").
	ClamAV Format = "clamav"
)

// MaxLine is the length in bytes of the longest line that is read.
const MaxLine = 8 << 10

// DetectFormat recognises a list by its file name, or, if that says nothing,
// by the first bytes of its content.
func DetectFormat(name string, head []byte) (Format, bool) {
	switch strings.ToLower(path.Ext(name)) {
	case ".hdb", ".hsb", ".hdu", ".hsu":
		return ClamAV, true
	case ".csv":
		return CSV, true
	}
	for line := range strings.Lines(string(head)) {
		line = strings.TrimSpace(line)
		if line == "" || comment(line) {
			continue
		}
		digits := strings.IndexFunc(line, func(r rune) bool { return !strings.ContainsRune("0123456789abcdefABCDEF", r) })
		if digits < 0 {
			digits = len(line)
		}
		if _, ok := hashset.BySize(digits / 2); !ok || digits%2 != 0 {
			return "", false
		}
		if rest := line[digits:]; strings.HasPrefix(rest, ":") {
			return ClamAV, true
		}
		return Plain, true
	}
	return "", false
}

// DefaultSeverity is the severity of a list's entries: high, but medium for
// ClamAV's databases of potentially unwanted applications (.hdu, .hsu).
func DefaultSeverity(name string) threat.Severity {
	switch strings.ToLower(path.Ext(name)) {
	case ".hdu", ".hsu":
		return threat.Medium
	}
	return threat.High
}

// Reader reads one list.
type Reader struct {
	// File is the list's name in errors, and what entries without a name of
	// their own are named after.
	File string
	// Format of the list.
	Format Format
	// Severity of its entries.
	Severity threat.Severity
	// Refused is told about every bad line; nil ignores them.
	Refused func(api.ImportError)
}

// Entries reads entries from r until its end. The key of an entry is valid
// until the next one. A bad line is told to Refused; the only error that is
// yielded, as the last element, is that of reading r.
func (l Reader) Entries(r io.Reader) iter.Seq2[hashset.Entry, error] {
	return func(yield func(hashset.Entry, error) bool) {
		var (
			lines   = bufio.NewReaderSize(r, MaxLine)
			columns = bazaarColumns
			key     [32]byte
		)
		for number := 1; ; number++ {
			line, err := readLine(lines)
			if err != nil && !errors.Is(err, errLong) {
				if !errors.Is(err, io.EOF) {
					yield(hashset.Entry{}, fmt.Errorf("reading %s: %w", l.File, err))
				}
				return
			}
			var e hashset.Entry
			ok := false
			if err == nil {
				switch l.Format {
				case CSV:
					e, ok, err = l.csv(line, &columns, key[:])
				case ClamAV:
					e, ok, err = l.clamav(line, key[:])
				case Canonical:
					e, ok, err = l.canonical(line, key[:])
				default:
					e, ok, err = l.plain(line, key[:])
				}
			}
			if err == nil && ok {
				err = checkName(e.Name)
			}
			if err != nil {
				if l.Refused != nil {
					l.Refused(api.ImportError{File: l.File, Line: number, Text: err.Error()})
				}
				continue
			}
			if ok && !yield(e, nil) {
				return
			}
		}
	}
}

var errLong = fmt.Errorf("the line is longer than %d bytes", MaxLine)

// readLine returns the next line without its end; of a line that is too long
// it skips the rest.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		for errors.Is(err, bufio.ErrBufferFull) {
			_, err = r.ReadSlice('\n')
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return "", err
		}
		return "", errLong
	}
	if len(line) == 0 && err != nil {
		return "", err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimSpace(string(line)), nil
}

func comment(line string) bool {
	return line[0] == '#' || line[0] == ';' || strings.HasPrefix(line, "//")
}

// name is what entries without a name are called: the list's base name.
func (l Reader) name() string {
	base := path.Base(l.File)
	if cut := strings.TrimSuffix(base, path.Ext(base)); cut != "" {
		base = cut
	}
	return "Hash." + base
}

func digest(text string, key []byte) ([]byte, error) {
	if _, ok := hashset.BySize(len(text) / 2); !ok || len(text)%2 != 0 {
		return nil, fmt.Errorf("a digest has 32, 40 or 64 hexadecimal digits, not %d characters", len(text))
	}
	n, err := hex.Decode(key, []byte(text))
	if err != nil {
		return nil, errors.New("the digest is not hexadecimal")
	}
	return key[:n], nil
}

func (l Reader) plain(line string, key []byte) (hashset.Entry, bool, error) {
	if line == "" || comment(line) {
		return hashset.Entry{}, false, nil
	}
	text, name := line, ""
	if i := strings.IndexAny(line, " \t,;"); i >= 0 {
		text, name = line[:i], strings.Trim(line[i:], " \t,;*\"")
	}
	if name == "" {
		name = l.name()
	}
	k, err := digest(strings.Trim(text, `"`), key)
	return hashset.Entry{Key: k, Size: hashset.AnySize, Name: name, Severity: l.Severity}, true, err
}

func (l Reader) clamav(line string, key []byte) (hashset.Entry, bool, error) {
	if line == "" || comment(line) {
		return hashset.Entry{}, false, nil
	}
	fields := strings.Split(line, ":")
	if len(fields) < 3 || len(fields) > 5 {
		return hashset.Entry{}, false, fmt.Errorf("want digest:size:name, got %d fields", len(fields))
	}
	size, err := parseSize(fields[1])
	if err != nil {
		return hashset.Entry{}, false, err
	}
	if fields[2] == "" {
		return hashset.Entry{}, false, errors.New("the name is empty")
	}
	k, err := digest(fields[0], key)
	return hashset.Entry{Key: k, Size: size, Name: fields[2], Severity: l.Severity}, true, err
}

func checkName(name string) error {
	switch {
	case len(name) > hashset.MaxName:
		return fmt.Errorf("the name is longer than %d bytes", hashset.MaxName)
	case !utf8.ValidString(name):
		return errors.New("the name is not UTF-8")
	case strings.ContainsFunc(name, unicode.IsControl):
		return errors.New("the name contains control characters")
	}
	return nil
}
