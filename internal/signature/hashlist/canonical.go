package hashlist

import (
	"encoding/hex"
	"errors"
	"strconv"
	"strings"

	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/threat"
)

// Canonical is the form in which bundles carry lists of every format:
// digest:size:severity:name, the size may be *, the name may contain colons.
const Canonical Format = "canonical"

// AppendCanonical appends an entry as one line.
func AppendCanonical(b []byte, e hashset.Entry) []byte {
	b = hex.AppendEncode(b, e.Key)
	b = append(b, ':')
	if e.Size == hashset.AnySize {
		b = append(b, '*')
	} else {
		b = strconv.AppendInt(b, e.Size, 10)
	}
	b = append(b, ':')
	b = append(b, e.Severity...)
	b = append(b, ':')
	b = append(b, e.Name...)
	return append(b, '\n')
}

func (l Reader) canonical(line string, key []byte) (hashset.Entry, bool, error) {
	fields := strings.SplitN(line, ":", 4)
	if len(fields) != 4 {
		return hashset.Entry{}, false, errors.New("want digest:size:severity:name")
	}
	size, err := parseSize(fields[1])
	if err != nil {
		return hashset.Entry{}, false, err
	}
	severity := threat.Severity(fields[2])
	if severity.Rank() == 0 {
		return hashset.Entry{}, false, errors.New("the severity is unknown")
	}
	if fields[3] == "" {
		return hashset.Entry{}, false, errors.New("the name is empty")
	}
	k, err := digest(fields[0], key)
	return hashset.Entry{Key: k, Size: size, Name: fields[3], Severity: severity}, true, err
}

// parseSize reads a size in bytes; * is any size.
func parseSize(text string) (int64, error) {
	if text == "*" {
		return hashset.AnySize, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return 0, errors.New("the size is neither a number of bytes nor *")
	}
	return n, nil
}
