package ruleset

import (
	"strconv"
	"strings"

	"github.com/VirusTotal/gyp"
	"github.com/VirusTotal/gyp/ast"
)

// condition is what the evaluation needs of a parsed rule.
type condition struct {
	expression ast.Expression
	strings    map[string]pattern
}

// pattern is how every match of a string must begin.
type pattern struct{ want, mask []byte }

// parseCondition parses one rule; nil if the parser does not know its syntax,
// which is then left to libyara.
func parseCondition(text string) (c *condition) {
	// The parser is meant for well-formed rules and panics on some others.
	defer func() {
		if recover() != nil {
			c = nil
		}
	}()
	set, err := gyp.ParseString(text)
	if err != nil || len(set.Rules) != 1 {
		return nil
	}
	r := set.Rules[0]
	c = &condition{expression: r.Condition, strings: map[string]pattern{}}
	for _, s := range r.Strings {
		if p, ok := patternOf(s); ok {
			c.strings[s.GetIdentifier()] = p
		}
	}
	return c
}

func patternOf(s ast.String) (pattern, bool) {
	switch s := s.(type) {
	case *ast.TextString:
		if s.Wide || s.Nocase || s.Xor || s.Base64 || s.Base64Wide || s.Value == "" {
			return pattern{}, false
		}
		value, ok := unescape(s.Value)
		return pattern{want: value}, ok
	case *ast.HexString:
		var p pattern
		for _, t := range s.Tokens {
			b, ok := t.(*ast.HexBytes)
			if !ok {
				break
			}
			for i := range b.Bytes {
				mask := b.Masks[i]
				if b.Nots[i] {
					mask = 0 // "anything but": no fixed bits
				}
				p.want, p.mask = append(p.want, b.Bytes[i]), append(p.mask, mask)
			}
		}
		return p, len(p.want) > 0
	}
	return pattern{}, false
}

// unescape resolves the escapes of YARA text strings: \" \\ \t \n \r \xNN.
func unescape(s string) ([]byte, bool) {
	out := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '\\' {
			out = append(out, s[i])
			continue
		}
		i++
		if i == len(s) {
			return nil, false
		}
		switch s[i] {
		case '"', '\\':
			out = append(out, s[i])
		case 't':
			out = append(out, '\t')
		case 'n':
			out = append(out, '\n')
		case 'r':
			out = append(out, '\r')
		case 'x':
			if i+2 >= len(s) {
				return nil, false
			}
			n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
			if err != nil {
				return nil, false
			}
			out = append(out, byte(n))
			i += 2
		default:
			return nil, false
		}
	}
	return out, true
}

// reader describes a uintN function: its width in bytes, byte order and sign.
type reader struct {
	width  int
	big    bool
	signed bool
}

func readerOf(name string) (r reader, ok bool) {
	name, r.big = strings.CutSuffix(name, "be")
	switch name {
	case "uint8":
		r.width = 1
	case "uint16":
		r.width = 2
	case "uint32":
		r.width = 4
	case "int8":
		r.width, r.signed = 1, true
	case "int16":
		r.width, r.signed = 2, true
	case "int32":
		r.width, r.signed = 4, true
	}
	return r, r.width > 0
}

// bytes returns the bytes a file must hold for the reader to yield n; false if
// it can never yield n.
func (r reader) bytes(n int64) ([]byte, bool) {
	low, high := int64(0), int64(1)<<(8*r.width)-1
	if r.signed {
		low, high = -(int64(1) << (8*r.width - 1)), int64(1)<<(8*r.width-1)-1
	}
	if n < low || n > high {
		return nil, false
	}
	b := make([]byte, r.width)
	for i := range b {
		at := i
		if r.big {
			at = r.width - 1 - i
		}
		b[at] = byte(n >> (8 * i))
	}
	return b, true
}

// value decodes what the reader yields.
func (r reader) value(b []byte) int64 {
	var n uint64
	for i := range b {
		at := i
		if r.big {
			at = r.width - 1 - i
		}
		n |= uint64(b[at]) << (8 * i)
	}
	if r.signed {
		shift := 64 - 8*r.width
		return int64(n<<shift) >> shift
	}
	return int64(n)
}
