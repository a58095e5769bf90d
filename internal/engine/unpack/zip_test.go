package unpack

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"strings"
	"testing"

	"github.com/klauspost/compress/flate"
	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// rawMember is a zip member written byte by byte, with whatever lies a test needs.
type rawMember struct {
	name           string
	flags, central uint16 // general purpose flags in the local and the central header
	method         uint16
	data           []byte // as stored
	size           int
	crc            uint32
	offset         int // set by rawZip
}

func (m *rawMember) local() []byte {
	b := []byte(zipLocalSig)
	b = le(b, 2, 20, 2, uint64(m.flags), 2, uint64(m.method), 4, 0, 4, uint64(m.crc), 4, uint64(len(m.data)), 4, uint64(m.size), 2, uint64(len(m.name)), 2, 0)
	return append(b, m.name...)
}

func (m *rawMember) directory() []byte {
	b := []byte(zipCentralSig)
	b = le(b, 2, 20, 2, 20, 2, uint64(m.central), 2, uint64(m.method), 4, 0, 4, uint64(m.crc), 4, uint64(len(m.data)), 4, uint64(m.size),
		2, uint64(len(m.name)), 2, 0, 2, 0, 2, 0, 2, 0, 4, 0, 4, uint64(m.offset))
	return append(b, m.name...)
}

// le appends numbers: pairs of width in bytes and value.
func le(b []byte, pairs ...uint64) []byte {
	for i := 0; i < len(pairs); i += 2 {
		var v [8]byte
		binary.LittleEndian.PutUint64(v[:], pairs[i+1])
		b = append(b, v[:pairs[i]]...)
	}
	return b
}

func endRecord(count, size, offset int) []byte {
	return le([]byte(zipEndSig), 2, 0, 2, 0, 2, uint64(count), 2, uint64(count), 4, uint64(size), 4, uint64(offset), 2, 0)
}

func rawZip(members ...*rawMember) []byte {
	var b, dir []byte
	for _, m := range members {
		m.offset = len(b)
		b = append(append(b, m.local()...), m.data...)
		dir = append(dir, m.directory()...)
	}
	return append(append(b, dir...), endRecord(len(members), len(dir), len(b))...)
}

func stored(name string, data []byte) *rawMember {
	return &rawMember{name: name, data: data, size: len(data), crc: crc32.ChecksumIEEE(data)}
}

func TestZipWithoutDirectory(t *testing.T) {
	t.Parallel()
	for _, method := range []uint16{zip.Store, zip.Deflate} {
		whole := zipOf(t, method, entry{"note.txt", noteText}, entry{"program.bin", program()})
		if method == zip.Store {
			whole = rawZip(stored("note.txt", noteText), stored("program.bin", program()))
		}
		f := walkAll(t, whole[:bytes.Index(whole, []byte(zipCentralSig))], engine.Limits{})
		require.Equal(t, []string{threat.ReasonDamaged}, f.codes())
		f.has(t, "note.txt", noteText)
		f.has(t, "program.bin", program())
	}
}

func TestZipMembersMissingFromDirectory(t *testing.T) {
	t.Parallel()
	hidden := stored("hidden", program())
	whole := rawZip(stored("shown", noteText), hidden, stored("last", noteText))
	// Take the entry out of the directory.
	entry := hidden.directory()
	at := bytes.Index(whole, entry)
	dir := bytes.Index(whole, []byte(zipCentralSig))
	size := len(whole) - 22 - dir - len(entry)
	whole = append(append(append([]byte{}, whole[:at]...), whole[at+len(entry):len(whole)-22]...), endRecord(2, size, dir)...)
	f := walkAll(t, whole, engine.Limits{})
	require.Equal(t, []string{"shown", "last", "hidden"}, f.order)
	require.Equal(t, program(), f.content["hidden"])
	require.Empty(t, f.reasons)
}

// TestZipEncryptionFlagInOneHeader: packers of hostile apps set the flag in one
// header only, so that scanners give up.
func TestZipEncryptionFlagInOneHeader(t *testing.T) {
	t.Parallel()
	for _, flags := range [][2]uint16{{0, 1}, {1, 0}} {
		m := stored("program.bin", program())
		m.flags, m.central = flags[0], flags[1]
		f := walkAll(t, rawZip(m), engine.Limits{})
		require.Empty(t, f.reasons)
		f.has(t, "program.bin", program())
	}
}

func TestZipWrongChecksumIsInspectedAndDamaged(t *testing.T) {
	t.Parallel()
	m := stored("note.txt", noteText)
	m.crc++
	f := walkAll(t, rawZip(m), engine.Limits{})
	require.Equal(t, []threat.Reason{{Code: threat.ReasonDamaged, Text: "note.txt: checksum is wrong"}}, f.reasons)
	f.has(t, "note.txt", noteText)
}

func TestZip64(t *testing.T) {
	t.Parallel()
	// Sizes, offset and the end record only in their 64-bit forms.
	local := le([]byte(zipLocalSig), 2, 45, 2, 0, 2, 0, 4, 0, 4, uint64(crc32.ChecksumIEEE(noteText)), 4, 0xffffffff, 4, 0xffffffff, 2, 4, 2, 20)
	local = le(append(local, "note"...), 2, 1, 2, 16, 8, uint64(len(noteText)), 8, uint64(len(noteText)))
	whole := append(bytes.Clone(local), noteText...)
	dir := le([]byte(zipCentralSig), 2, 45, 2, 45, 2, 0, 2, 0, 4, 0, 4, uint64(crc32.ChecksumIEEE(noteText)), 4, 0xffffffff, 4, 0xffffffff,
		2, 4, 2, 28, 2, 0, 2, 0, 2, 0, 4, 0, 4, 0xffffffff)
	dir = le(append(dir, "note"...), 2, 1, 2, 24, 8, uint64(len(noteText)), 8, uint64(len(noteText)), 8, 0)
	start := uint64(len(whole))
	whole = append(whole, dir...)
	end := uint64(len(whole))
	whole = le(append(whole, zip64EndSig...), 8, 44, 2, 45, 2, 45, 4, 0, 4, 0, 8, 1, 8, 1, 8, uint64(len(dir)), 8, start)
	whole = le(append(whole, zip64LocSig...), 4, 0, 8, end, 4, 1)
	whole = le(append(whole, zipEndSig...), 2, 0, 2, 0, 2, 0xffff, 2, 0xffff, 4, 0xffffffff, 4, 0xffffffff, 2, 0)
	for _, prefix := range []string{"", "#!/bin/sh\nexit\n\xff\xfe"} {
		f := walkAll(t, append([]byte(prefix), whole...), engine.Limits{})
		require.Empty(t, f.reasons)
		f.has(t, "note", noteText)
	}
}

// overlapping makes the bomb of D. Fifield, "A better zip bomb" (2019): every
// member's data quotes the local headers of the members after it, and all end
// in the same compressed kernel.
func overlapping(t *testing.T, members, kernel int) []byte {
	t.Helper()
	var deflated bytes.Buffer
	w, err := flate.NewWriter(&deflated, 9)
	require.NoError(t, err)
	_, err = w.Write(make([]byte, kernel))
	require.NoError(t, err)
	require.NoError(t, w.Close())
	var files [][]byte // data of each member, innermost first
	data, size := deflated.Bytes(), kernel
	var heads [][]byte
	for i := range members {
		m := &rawMember{name: string(rune('A' + i%26)), method: 8, data: data, size: size}
		head := m.local()
		heads = append(heads, head)
		files = append(files, data)
		// A stored deflate block that holds the header just made.
		quote := le(nil, 1, 0, 2, uint64(len(head)), 2, uint64(^uint16(len(head))))
		data = append(append(quote, head...), data...)
		size += len(head)
	}
	last := members - 1
	whole := append(bytes.Clone(heads[last]), files[last]...)
	dir := []byte{}
	for i := last; i >= 0; i-- {
		offset := len(whole) - len(heads[i]) - len(files[i])
		m := &rawMember{name: string(rune('A' + i%26)), method: 8, data: files[i], size: kernel, offset: offset}
		dir = append(dir, m.directory()...)
	}
	return append(append(whole, dir...), endRecord(members, len(dir), len(whole))...)
}

func TestZipOverlap(t *testing.T) {
	t.Parallel()
	bomb := overlapping(t, 200, 1<<20)
	f := walkAll(t, bomb, engine.Limits{})
	var top []string
	for _, name := range f.order {
		if !strings.Contains(name, "!/") { // what a member quotes looks like a zip again
			top = append(top, name)
		}
	}
	require.Equal(t, []string{"R"}, top, "only the first member is unpacked")
	require.Equal(t, threat.Reason{Code: threat.ReasonDamaged, Text: "R: checksum is wrong (and 199 more)"}, f.reasons[len(f.reasons)-1])
}
