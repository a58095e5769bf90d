package unpack

import (
	"bytes"
	"errors"
	"io"
	"strconv"
	"strings"
)

var errAR = errors.New("invalid ar header")

// unexpectedEnd is returned where a header must follow and nothing does.
var unexpectedEnd = io.ErrUnexpectedEOF

// maxNameTable bounds the table of long names of an ar archive in bytes.
const maxNameTable = 4 << 20

// ar unpacks an archive of ar(5), which Debian packages are too. Long names are
// understood in both spellings, GNU's (a table called "//") and BSD's ("#1/LEN").
func (w *walk) ar(c *cursor) error {
	if err := c.skip(8); err != nil {
		return err
	}
	var table []byte
	for {
		if err := w.b.check(w.ctx); err != nil {
			return err
		}
		if b := c.peek(60); len(b) < 60 {
			if len(bytes.TrimSpace(b)) == 0 {
				return c.skip(int64(len(b)))
			}
			return unexpectedEnd
		}
		h, err := c.next(60)
		if err != nil {
			return unexpected(err)
		}
		size, err := strconv.ParseInt(strings.TrimSpace(string(h[48:58])), 10, 64)
		if err != nil || size < 0 || string(h[58:60]) != "`\n" {
			return errAR
		}
		w.proof = true
		name := strings.TrimRight(string(h[:16]), " ")
		pad := size & 1
		switch {
		case name == "/" || name == "/SYM64/" || name == "__.SYMDEF":
			err = c.skip(size)
		case name == "//":
			if size > maxNameTable {
				return errAR
			}
			table = make([]byte, 0, min(size, 64<<10))
			table, err = appendN(table, c, size)
		default:
			if name, size, err = arName(c, name, size, table); err == nil {
				err = c.stored(w, name, size)
			}
		}
		if err != nil {
			return err
		}
		if pad == 1 && len(c.peek(1)) == 1 {
			if err := c.skip(1); err != nil {
				return err
			}
		}
	}
}

// arName resolves a long name; a BSD name is taken from the content.
func arName(c *cursor, name string, size int64, table []byte) (string, int64, error) {
	if long, ok := strings.CutPrefix(name, "#1/"); ok {
		n, err := strconv.ParseInt(long, 10, 32)
		if err != nil || n < 0 || n > size || n > maxPath {
			return "", 0, errAR
		}
		b, err := c.next(int(n))
		if err != nil {
			return "", 0, unexpected(err)
		}
		return string(bytes.TrimRight(b, "\x00")), size - n, nil
	}
	if len(name) > 1 && name[0] == '/' {
		at, err := strconv.ParseInt(name[1:], 10, 64)
		if err != nil || at < 0 || at >= int64(len(table)) {
			return name, size, nil // the name is unknown, the content is not
		}
		long := table[at:]
		if end := bytes.IndexByte(long, '\n'); end >= 0 {
			long = long[:end]
		}
		name = string(long[:min(len(long), maxPath)])
	}
	return strings.TrimSuffix(name, "/"), size, nil
}

// appendN appends the next n bytes of the cursor to b without trusting n.
func appendN(b []byte, c *cursor, n int64) ([]byte, error) {
	for n > 0 {
		part, err := c.next(int(min(n, 4096)))
		if err != nil {
			return b, unexpected(err)
		}
		b = append(b, part...)
		n -= int64(len(part))
	}
	return b, nil
}
