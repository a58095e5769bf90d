package filetype

import (
	"archive/tar"
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func pad(s string) []byte { return append([]byte(s), make([]byte, 300)...) }

func tarHeader(t testing.TB, name string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	require.NoError(t, w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: 0}))
	require.NoError(t, w.Close())
	return b.Bytes()
}

// preposix turns a tar header into one of the seventh edition: no magic, and
// the checksum without it.
func preposix(b []byte) []byte {
	clear(b[257:512])
	copy(b[148:156], "        ")
	sum := 0
	for _, c := range b[:512] {
		sum += int(c)
	}
	for i := 5; i >= 0; i-- {
		b[148+i] = byte('0' + sum&7)
		sum >>= 3
	}
	b[154], b[155] = 0, ' '
	return b
}

func zipHeader(names ...string) []byte {
	var b []byte
	for _, n := range names {
		h := make([]byte, 30)
		copy(h, "PK\x03\x04")
		h[26] = byte(len(n))
		b = append(append(b, h...), n...)
	}
	return b
}

func TestRecognise(t *testing.T) {
	t.Parallel()
	pe := append(pad("MZ"), "PE\x00\x00"...)
	pe[60], pe[61] = byte(302&0xff), byte(302>>8)
	for name, c := range map[string]struct {
		head []byte
		want Type
	}{
		"empty":            {nil, Empty},
		"elf":              {pad("\x7fELF\x02\x01\x01"), ELF},
		"pe":               {pe, PE},
		"dos":              {pad("MZ\x90\x00"), DOS},
		"MZ as text":       {[]byte("MZ is a name"), Text},
		"macho":            {pad("\xcf\xfa\xed\xfe\x07\x00\x00\x01"), MachO},
		"universal macho":  {pad("\xca\xfe\xba\xbe\x00\x00\x00\x02"), MachO},
		"java":             {pad("\xca\xfe\xba\xbe\x00\x00\x00\x34"), Java},
		"dex":              {pad("dex\n035\x00"), DEX},
		"wasm":             {pad("\x00asm\x01\x00\x00\x00"), WASM},
		"script":           {[]byte("#!/bin/sh\n"), Script},
		"script after bom": {[]byte("\xef\xbb\xbf#!/bin/sh\n"), Script},
		"php":              {[]byte("\n<?php echo 1;"), PHP},
		"php in xhtml":     {[]byte(`<?xml version="1.0"?><?PHP echo 1;`), PHP},
		"php in data":      {[]byte("\x01\x02\x03<?= `id` ?>"), PHP},
		"html":             {[]byte("\n<!DOCTYPE HTML><p>"), HTML},
		"xml":              {[]byte(`<?xml version="1.0"?><a/>`), XML},
		"text":             {[]byte("just text\n"), Text},
		"utf-8 cut off":    {bytes.Repeat([]byte("ü"), HeadLen)[:HeadLen-1], Text},
		"latin-1":          {[]byte("M\xfcller was here and more"), Data},
		"data":             {[]byte{1, 2, 3, 4}, Data},
		"zip":              {zipHeader("a.txt"), Zip},
		"empty zip":        {pad("PK\x05\x06"), Zip},
		"spanned zip":      {pad("PK\x07\x08PK\x03\x04"), Zip},
		"jar":              {zipHeader("META-INF/", "META-INF/MANIFEST.MF"), JAR},
		"apk":              {zipHeader("META-IN", "AndroidManifest.xml"), APK},
		"ooxml":            {zipHeader("[Content_Types].xml"), OOXML},
		"odf":              {zipHeader("mimetype"), ODF},
		"7z":               {pad("7z\xbc\xaf\x27\x1c"), Seven},
		"tar":              {tarHeader(t, "a"), Tar},
		"old tar":          {preposix(tarHeader(t, "a")), Tar},
		"script in tar":    {tarHeader(t, "#!/bin/sh"), Tar},
		"gzip":             {pad("\x1f\x8b\x08"), Gzip},
		"gzip, bad flags":  {pad("\x1f\x8b\x08\xe0"), Data},
		"bzip2":            {pad("BZh91AY&SY"), Bzip2},
		"BZh as text":      {[]byte("BZh9 is a magic"), Text},
		"xz":               {pad("\xfd7zXZ\x00"), XZ},
		"lzma":             {pad("\x5d\x00\x00\x80\x00\xff\xff\xff\xff\xff\xff\xff\xff\x00"), LZMA},
		"no lzma":          {pad("\x5d\x00\x01\x80\x01\xff\xff\xff\xff\xff\xff\xff\xff\x00"), Data},
		"zstd":             {pad("\x28\xb5\x2f\xfd"), Zstd},
		"skippable zstd":   {[]byte("\x50\x2a\x4d\x18\x02\x00\x00\x00ab\x28\xb5\x2f\xfd"), Zstd},
		"skippable lz4":    {[]byte("\x5e\x2a\x4d\x18\x02\x00\x00\x00ab\x04\x22\x4d\x18"), LZ4},
		"lz4":              {pad("\x04\x22\x4d\x18"), LZ4},
		"legacy lz4":       {pad("\x02\x21\x4c\x18"), LZ4},
		"cpio newc":        {pad("070701"), CPIO},
		"cpio odc":         {pad("070707"), CPIO},
		"cpio binary":      {append([]byte("\xc7\x71\x00\x00\x00\x00\xa4\x81"), append(make([]byte, 12), 5, 0, 0, 0, 0, 0)...), CPIO},
		"ar":               {[]byte("!<arch>\nfoo.o/"), AR},
		"deb":              {[]byte("!<arch>\ndebian-binary   "), DEB},
		"rpm":              {pad("\xed\xab\xee\xdb\x03"), RPM},
		"rar":              {pad("Rar!\x1a\x07\x01\x00"), RAR},
		"cab":              {pad("MSCF\x00\x00\x00\x00"), CAB},
		"compress":         {pad("\x1f\x9d\x90"), Compress},
		"lha":              {pad("\x20\x00-lh5-"), LHA},
		"squashfs":         {pad("hsqs"), Squashfs},
		"lzip":             {pad("LZIP\x01"), Lzip},
		"pdf":              {[]byte("%PDF-1.7\n"), PDF},
		"ole":              {pad("\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"), OLE},
		"rtf":              {[]byte(`{\rtf1 hi}`), RTF},
		"png":              {pad("\x89PNG\r\n\x1a\n"), PNG},
		"jpeg":             {pad("\xff\xd8\xff\xe0"), JPEG},
		"gif":              {pad("GIF89a"), GIF},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			require.Equal(t, c.want, Recognise(c.head))
		})
	}
}

// TestTypesAreConsistent: every type has a kind and zip's children are zip.
func TestTypesAreConsistent(t *testing.T) {
	t.Parallel()
	for _, typ := range []Type{Zip, JAR, APK, OOXML, ODF} {
		require.True(t, typ.IsZip())
		require.Equal(t, Archive, typ.Kind())
	}
	require.Equal(t, Archive, Seven.Kind())
	require.Equal(t, Stream, Tar.Kind())
	require.Equal(t, Unsupported, RAR.Kind())
	require.Equal(t, Plain, ELF.Kind())
}

func FuzzRecognise(f *testing.F) {
	f.Add([]byte("#!/bin/sh\n"))
	f.Add([]byte("\x50\x2a\x4d\x18\xff\xff\xff\xff"))
	f.Add(pad("MZ"))
	f.Add(zipHeader("a", "META-INF/"))
	f.Add(preposix(tarHeader(f, "a")))
	f.Fuzz(func(t *testing.T, head []byte) {
		typ := Recognise(head)
		if typ == "" {
			t.Fatal("no type")
		}
		if (typ == Empty) != (len(head) == 0) {
			t.Fatalf("%d bytes are %s", len(head), typ)
		}
	})
}

func BenchmarkRecognise(b *testing.B) {
	for name, head := range map[string][]byte{
		"elf":  pad("\x7fELF\x02\x01\x01"),
		"text": []byte(strings.Repeat("some plain text\n", HeadLen/16)),
		"data": bytes.Repeat([]byte{0xee}, HeadLen),
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Recognise(head)
			}
		})
	}
}
