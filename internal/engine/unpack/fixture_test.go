package unpack

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// TestFixtures opens archives that other programs wrote (testdata/make.sh).
func TestFixtures(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"a.tar.xz", "a.tar.lzma", "a.tar.bz2", "a.tar.legacy.lz4", "v7.tar",
		"a.tar.x86.xz", "a.tar.arm.xz", "a.tar.armthumb.xz", "a.tar.arm64.xz", "a.tar.powerpc.xz", "a.tar.sparc.xz",
		"a.tar.delta.xz", "a.tar.blocks.xz",
		"Copy.7z", "LZMA.7z", "LZMA2.7z", "Deflate.7z", "BZip2.7z", "single.7z",
		"filter-BCJ.7z", "filter-BCJ2.7z", "filter-ARM.7z", "filter-ARMT.7z", "filter-PPC.7z", "filter-SPARC.7z", "filter-Delta4.7z",
		"Deflate.zip", "BZip2.zip", "LZMA.zip", "XZ.zip", "streamed.zip",
		"newc.cpio", "crc.cpio", "odc.cpio", "bin.cpio",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := walkAll(t, fixture(t, name), engine.Limits{})
			require.Empty(t, f.reasons)
			f.has(t, "note.txt", noteText)
			f.has(t, "program.bin", program())
		})
	}
}

// TestRefused names what cannot be opened, and why.
func TestRefused(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]threat.Reason{
		"encrypted.7z":       {Code: threat.ReasonEncrypted, Text: "note.txt: is encrypted (and 1 more)"},
		"encrypted-names.7z": {Code: threat.ReasonEncrypted, Text: "names of the members are encrypted"},
		"encrypted.zip":      {Code: threat.ReasonEncrypted, Text: "note.txt: is encrypted (and 1 more)"},
		"aes.zip":            {Code: threat.ReasonEncrypted, Text: "note.txt: is encrypted (and 1 more)"},
		"PPMd.7z":            {Code: threat.ReasonUnknownMethod, Text: "note.txt: compression method 0x30401 is not known (and 1 more)"},
		"PPMd.zip":           {Code: threat.ReasonUnknownMethod, Text: "program.bin: compression method 98 is not known"},
		"Deflate64.zip":      {Code: threat.ReasonUnknownMethod, Text: "program.bin: compression method 9 is not known"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := walkAll(t, fixture(t, name), engine.Limits{})
			require.Equal(t, []threat.Reason{want}, f.reasons)
		})
	}
}

func TestConcatenatedXZ(t *testing.T) {
	t.Parallel()
	f := walkAll(t, fixture(t, "streams.xz"), engine.Limits{})
	require.Empty(t, f.reasons)
	f.has(t, contentName, append(bytes.Clone(noteText), noteText...))
}

func TestSparseTar(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"sparse-gnu.tar", "sparse-pax.tar"} {
		f := walkAll(t, fixture(t, name), engine.Limits{})
		require.Empty(t, f.reasons, name)
		want := make([]byte, 3_000_000)
		copy(want[2_000_000:], "found in a hole")
		f.has(t, "sparse", want)
	}
}

// TestDamage cuts and corrupts every fixture: whatever happens, a walk ends
// without a panic, and a missing half never goes unnoticed.
func TestDamage(t *testing.T) {
	t.Parallel()
	for _, name := range []string{
		"a.tar.xz", "a.tar.lzma", "a.tar.bz2", "a.tar.x86.xz", "v7.tar", "LZMA.7z", "filter-BCJ2.7z",
		"BZip2.zip", "Deflate.zip", "newc.cpio", "odc.cpio", "bin.cpio",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			whole := fixture(t, name)
			f := walkAll(t, whole[:len(whole)/2], engine.Limits{})
			require.Contains(t, f.codes(), threat.ReasonDamaged)
			for at := 0; at < len(whole); at += 97 {
				broken := bytes.Clone(whole)
				broken[at] ^= 0x55
				walkSource(t, &Source{Data: broken}, broken, engine.Limits{})
			}
		})
	}
}
