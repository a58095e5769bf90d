package unpack

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/filetype"
	"github.com/lazaret/lazaret/internal/threat"
)

// noteText and program are the content of all fixtures under testdata.
var noteText = []byte("a note that is found again\n")

// program looks like machine code of several processors: pseudo-random bytes
// with many instructions that branch filters convert.
func program() []byte {
	const size = 6000
	b := make([]byte, 0, size+8)
	x := uint32(20240229)
	next := func() byte {
		x = x*1664525 + 1013904223
		return byte(x >> 24)
	}
	for len(b) < size {
		switch next() % 9 {
		case 0, 1:
			b = append(b, 0xe8|next()&1, next(), next(), next()&3, 0-next()&1) // x86 call, jmp
		case 2:
			b = append(b, 0x0f, 0x80|next()&15, next(), next(), 0, 0) // x86 jcc
		case 3:
			b = append(b[:len(b)&^3], next(), next(), next(), 0xeb) // ARM BL
		case 4:
			b = append(b[:len(b)&^3], next(), 0xf0|next()&7, next(), 0xf8|next()&7) // Thumb BL
		case 5:
			b = append(b[:len(b)&^3], 0x48|next()&3, next(), next(), 1|next()&0xfc) // PowerPC bl
		case 6:
			b = append(b[:len(b)&^3], 0x40, next()&0x3f, next(), next()) // SPARC call
		case 7:
			b = append(b[:len(b)&^3], next(), next(), next(), 0x94|next()&3) // ARM64 BL
		default:
			b = append(b[:len(b)&^3], next(), next(), next()&1, 0x90|next()&0x60) // ARM64 ADRP
		}
	}
	return b[:size]
}

// found is what a walk produced: member names with their content, nested
// containers opened, names joined by "!/".
type found struct {
	content map[string][]byte
	order   []string
	reasons []threat.Reason
}

func (f *found) codes() []string {
	var c []string
	for _, r := range f.reasons {
		c = append(c, r.Code)
	}
	return c
}

// walk opens everything in data, twice: in memory and as a file that is read
// piece by piece, which must make no difference.
func walkAll(t *testing.T, data []byte, limits engine.Limits) *found {
	t.Helper()
	inMemory := walkSource(t, &Source{Data: data}, data, limits)
	read := walkSource(t, &Source{At: bytes.NewReader(data), Size: int64(len(data))}, data, limits)
	require.Equal(t, inMemory.order, read.order, "members differ between memory and file")
	if limits == (engine.Limits{}) {
		require.Equal(t, inMemory.reasons, read.reasons)
		require.Equal(t, inMemory.content, read.content)
	}
	return inMemory
}

func walkSource(t *testing.T, src *Source, data []byte, limits engine.Limits) *found {
	t.Helper()
	src.Type = filetype.Recognise(data[:min(len(data), filetype.HeadLen)])
	f := &found{content: map[string][]byte{}}
	u := New()
	defer u.Close()
	b := NewBudget(limits, int64(len(data)))
	require.NoError(t, f.walk(u, src, b, "", 0))
	return f
}

func (f *found) walk(u *Unpacker, src *Source, b *Budget, prefix string, depth int) error {
	reasons, err := u.Walk(context.Background(), src, b, func(m *Member) error {
		content, err := m.Data, error(nil)
		if m.Data == nil {
			content, err = io.ReadAll(m.Reader)
		}
		name := prefix + m.Name
		f.order = append(f.order, name)
		f.content[name] = bytes.Clone(content)
		if depth < 6 {
			inner := &Source{Type: filetype.Recognise(content), Data: content}
			if werr := f.walk(u, inner, b, name+"!/", depth+1); werr != nil {
				return werr
			}
		}
		return err
	})
	f.reasons = append(f.reasons, reasons...)
	return err
}

// has requires a member whose path ends in name with the given content.
func (f *found) has(t *testing.T, name string, content []byte) {
	t.Helper()
	for path, got := range f.content {
		if path == name || strings.HasSuffix(path, "/"+name) {
			require.Equal(t, content, got, "content of %s", path)
			return
		}
	}
	t.Fatalf("no member %s among %q, reasons %v", name, f.order, f.reasons)
}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	require.NoError(t, err)
	return b
}
