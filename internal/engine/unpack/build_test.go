package unpack

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"
)

// entry is a member to be written.
type entry struct {
	name string
	data []byte
}

func tarOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, e := range entries {
		require.NoError(t, w.WriteHeader(&tar.Header{Name: e.name, Mode: 0o644, Size: int64(len(e.data))}))
		_, err := w.Write(e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func zipOf(t testing.TB, method uint16, entries ...entry) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	w.RegisterCompressor(zipZstd, zstd.ZipCompressor())
	for _, e := range entries {
		f, err := w.CreateHeader(&zip.FileHeader{Name: e.name, Method: method})
		require.NoError(t, err)
		_, err = f.Write(e.data)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	return b.Bytes()
}

func gzipOf(t testing.TB, name string, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Name = name
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

func zstdOf(t testing.TB, data []byte) []byte {
	t.Helper()
	w, err := zstd.NewWriter(nil)
	require.NoError(t, err)
	return w.EncodeAll(data, nil)
}

func lz4Of(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	_, err := w.Write(data)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

// arOf writes an archive of ar(5); names over 15 bytes go into GNU's table.
func arOf(entries ...entry) []byte {
	var table, body bytes.Buffer
	member := func(name string, data []byte) {
		fmt.Fprintf(&body, "%-16s%-12d%-6d%-6d%-8o%-10d`\n", name, 0, 0, 0, 0o100644, len(data))
		body.Write(data)
		if len(data)%2 == 1 {
			body.WriteByte('\n')
		}
	}
	for _, e := range entries {
		if len(e.name) > 15 {
			fmt.Fprintf(&table, "%s/\n", e.name)
		}
	}
	if table.Len() > 0 {
		member("//", table.Bytes())
	}
	at := 0
	for _, e := range entries {
		name := e.name + "/"
		if len(e.name) > 15 {
			name = fmt.Sprintf("/%d", at)
			at += len(e.name) + 2
		}
		member(name, e.data)
	}
	return append([]byte("!<arch>\n"), body.Bytes()...)
}

// cpioOf writes a newc archive.
func cpioOf(entries ...entry) []byte {
	var b bytes.Buffer
	pad := func() { b.Write(make([]byte, -b.Len()&3)) }
	for _, e := range append(entries, entry{name: "TRAILER!!!"}) {
		mode := 0o100644
		if e.data == nil {
			mode = 0o40755
		}
		fmt.Fprintf(&b, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x", 1, mode, 0, 0, 1, 0, len(e.data), 0, 0, 0, 0, len(e.name)+1, 0)
		b.WriteString(e.name + "\x00")
		pad()
		b.Write(e.data)
		pad()
	}
	return b.Bytes()
}

// rpmOf writes the outline of a package around a payload.
func rpmOf(payload []byte) []byte {
	var b bytes.Buffer
	b.WriteString("\xed\xab\xee\xdb\x03\x00")
	b.Write(make([]byte, 90))
	header := func(data int) {
		b.WriteString("\x8e\xad\xe8\x01\x00\x00\x00\x00")
		_ = binary.Write(&b, binary.BigEndian, []uint32{1, uint32(data)})
		b.Write(make([]byte, 16+data))
	}
	header(5)
	b.Write(make([]byte, 3)) // to a multiple of eight
	header(11)
	b.Write(payload)
	return b.Bytes()
}
