package hashlist

import (
	"encoding/csv"
	"errors"
	"slices"
	"strings"

	"github.com/lazaret/lazaret/internal/engine/hashset"
)

// bazaarColumns are MalwareBazaar's columns as far as they are used, for files
// whose header was cut off.
var bazaarColumns = []string{
	"first_seen_utc", "sha256_hash", "md5_hash", "sha1_hash", "reporter",
	"file_name", "file_type_guess", "mime_type", "signature",
}

// digestColumns, the strongest first: one digest identifies the file, and every
// further kind of digest would have to be computed for every file scanned.
var digestColumns = []string{"sha256_hash", "sha1_hash", "md5_hash"}

// csv reads one line; a header, commented out or not, changes the columns.
func (l Reader) csv(line string, columns *[]string, key []byte) (hashset.Entry, bool, error) {
	header := strings.TrimLeft(line, "# ")
	if line == "" || (line[0] == '#' && !strings.Contains(header, "_hash")) {
		return hashset.Entry{}, false, nil
	}
	r := csv.NewReader(strings.NewReader(header))
	r.LazyQuotes, r.TrimLeadingSpace, r.FieldsPerRecord = true, true, -1
	fields, err := r.Read()
	if err != nil {
		return hashset.Entry{}, false, errors.New("the line is not CSV")
	}
	for i := range fields {
		fields[i] = strings.TrimSpace(fields[i])
	}
	if slices.ContainsFunc(digestColumns, func(c string) bool { return slices.Contains(fields, c) }) {
		*columns = fields
		return hashset.Entry{}, false, nil
	}
	field := func(column string) string {
		if i := slices.Index(*columns, column); i >= 0 && i < len(fields) && fields[i] != "n/a" {
			return fields[i]
		}
		return ""
	}
	name := field("signature")
	if name == "" {
		name = l.name()
	}
	for _, c := range digestColumns {
		if text := field(c); text != "" {
			k, err := digest(text, key)
			return hashset.Entry{Key: k, Size: hashset.AnySize, Name: name, Severity: l.Severity}, true, err
		}
	}
	return hashset.Entry{}, false, errors.New("the line has no digest")
}
