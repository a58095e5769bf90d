package unpack

import (
	"archive/zip"
	"bytes"
	"os"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

func TestAppended(t *testing.T) {
	t.Parallel()
	self, err := os.Executable()
	require.NoError(t, err)
	elf, err := os.ReadFile(self)
	require.NoError(t, err)
	script := []byte("#!/bin/sh\ntail -n +4 \"$0\" | tar x\nexit 0\n")
	two := []entry{{"note.txt", noteText}, {"program.bin", program()}}
	gif := append([]byte("GIF89a\x01\x00\x01\x00\x80\x00\x00"), make([]byte, 300)...)
	for name, data := range map[string][]byte{
		"zip after elf":     append(bytes.Clone(elf), zipOf(t, zip.Deflate, two...)...),
		"gzip after elf":    append(bytes.Clone(elf), gzipOf(t, "", tarOf(t, two...))...),
		"7z after elf":      append(bytes.Clone(elf), fixture(t, "LZMA.7z")...),
		"tar after elf":     append(bytes.Clone(elf), tarOf(t, two...)...),
		"gap, then gzip":    append(append(bytes.Clone(elf), make([]byte, 4096)...), gzipOf(t, "", tarOf(t, two...))...),
		"zip after script":  append(bytes.Clone(script), zipOf(t, zip.Deflate, two...)...),
		"gzip after script": append(bytes.Clone(script), gzipOf(t, "", tarOf(t, two...))...),
		"xz after script":   append(bytes.Clone(script), fixture(t, "a.tar.xz")...),
		"bzip2 after text":  append([]byte("just text\n"), fixture(t, "a.tar.bz2")...),
		"zstd after script": append(bytes.Clone(script), zstdOf(t, tarOf(t, two...))...),
		"zip after image":   append(gif, zipOf(t, zip.Deflate, two...)...),
	} {
		t.Run(name, func(t *testing.T) {
			f := walkAll(t, data, engine.Limits{})
			require.Empty(t, f.reasons)
			f.has(t, "note.txt", noteText)
			f.has(t, "program.bin", program())
		})
	}
	t.Run("program alone", func(t *testing.T) {
		f := walkAll(t, elf, engine.Limits{})
		require.Empty(t, f.order)
		require.Empty(t, f.reasons)
	})
	t.Run("encrypted zip after script", func(t *testing.T) {
		f := walkAll(t, append(bytes.Clone(script), fixture(t, "encrypted.zip")...), engine.Limits{})
		require.Equal(t, []string{threat.ReasonEncrypted}, f.codes())
	})
	t.Run("damaged gzip after script", func(t *testing.T) {
		z := gzipOf(t, "", tarOf(t, two...))
		f := walkAll(t, append(bytes.Clone(script), z[:len(z)/2]...), engine.Limits{})
		require.Contains(t, f.codes(), threat.ReasonDamaged)
	})
}

// TestMagicByChance: what only looks like the start of a container is not
// damage.
func TestMagicByChance(t *testing.T) {
	t.Parallel()
	for _, magic := range appendedMagics {
		if magic == "Rar!\x1a\x07" {
			continue // has no more to check, and is reported
		}
		data := append([]byte("#!/bin/sh\nprintf '"+magic+"'\n"), "\xff\xfe and then something else"...)
		f := walkAll(t, data, engine.Limits{})
		require.Empty(t, f.reasons, "%q", magic)
		require.Empty(t, f.order, "%q", magic)
	}
	data := append([]byte("plain text that mentions "), zipEndSig+" and goes on for a while"...)
	f := walkAll(t, data, engine.Limits{})
	require.Empty(t, f.reasons)
}
