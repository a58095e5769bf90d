package unpack

import (
	"archive/zip"
	"bytes"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

func TestGenerated(t *testing.T) {
	t.Parallel()
	two := []entry{{"note.txt", noteText}, {"dir/program.bin", program()}}
	long := entry{"a-name-of-more-than-fifteen-bytes.o", noteText}
	tarball := tarOf(t, two...)
	for name, c := range map[string]struct {
		data []byte
		want map[string][]byte
	}{
		"tar":         {tarball, map[string][]byte{"note.txt": noteText, "dir/program.bin": program()}},
		"tar.gz":      {gzipOf(t, "x.tar", tarball), map[string][]byte{"x.tar!/note.txt": noteText, "x.tar!/dir/program.bin": program()}},
		"gz members":  {append(gzipOf(t, "", noteText), gzipOf(t, "", noteText)...), map[string][]byte{"content": append(bytes.Clone(noteText), noteText...)}},
		"tar.zst":     {zstdOf(t, tarball), map[string][]byte{"content!/note.txt": noteText}},
		"zst frames":  {append(zstdOf(t, noteText), zstdOf(t, noteText)...), map[string][]byte{"content": append(bytes.Clone(noteText), noteText...)}},
		"tar.lz4":     {lz4Of(t, tarball), map[string][]byte{"content!/note.txt": noteText}},
		"lz4 frames":  {append(lz4Of(t, noteText), lz4Of(t, noteText)...), map[string][]byte{"content": append(bytes.Clone(noteText), noteText...)}},
		"zip":         {zipOf(t, zip.Deflate, two...), map[string][]byte{"note.txt": noteText, "dir/program.bin": program()}},
		"zip stored":  {zipOf(t, zip.Store, two...), map[string][]byte{"note.txt": noteText, "dir/program.bin": program()}},
		"zip zstd":    {zipOf(t, zipZstd, two...), map[string][]byte{"note.txt": noteText, "dir/program.bin": program()}},
		"ar":          {arOf(long, two[0]), map[string][]byte{long.name: noteText, "note.txt": noteText}},
		"cpio":        {cpioOf(entry{"dir", nil}, two[0], two[1]), map[string][]byte{"note.txt": noteText, "dir/program.bin": program()}},
		"initramfs":   {append(append(cpioOf(two[0]), make([]byte, 512)...), gzipOf(t, "", cpioOf(two[1]))...), map[string][]byte{"note.txt": noteText, "content!/dir/program.bin": program()}},
		"two tars":    {append(bytes.Clone(tarball), tarOf(t, entry{"late", noteText})...), map[string][]byte{"late": noteText}},
		"rpm gzip":    {rpmOf(gzipOf(t, "", cpioOf(two...))), map[string][]byte{"note.txt": noteText, "dir/program.bin": program()}},
		"rpm zstd":    {rpmOf(zstdOf(t, cpioOf(two...))), map[string][]byte{"note.txt": noteText}},
		"rpm plain":   {rpmOf(cpioOf(two...)), map[string][]byte{"note.txt": noteText}},
		"deb":         {arOf(entry{"debian-binary", []byte("2.0\n")}, entry{"data.tar.gz", gzipOf(t, "", tarball)}), map[string][]byte{"data.tar.gz!/content!/note.txt": noteText}},
		"docx in zip": {zipOf(t, zip.Deflate, entry{"a.docx", zipOf(t, zip.Deflate, entry{"[Content_Types].xml", noteText})}), map[string][]byte{"a.docx!/[Content_Types].xml": noteText}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := walkAll(t, c.data, engine.Limits{})
			require.Empty(t, f.reasons)
			for name, content := range c.want {
				require.Equal(t, content, f.content[name], "%s among %q", name, f.order)
			}
		})
	}
}

func TestTrailingDataIsNotIgnored(t *testing.T) {
	t.Parallel()
	f := walkAll(t, append(gzipOf(t, "", noteText), "garbage that nobody expects"...), engine.Limits{})
	require.Equal(t, []string{threat.ReasonDamaged}, f.codes())
	f = walkAll(t, append(gzipOf(t, "", noteText), zipOf(t, zip.Deflate, entry{"hidden", program()})...), engine.Limits{})
	require.Empty(t, f.reasons)
	f.has(t, "hidden", program())
	// Zeros pad tapes and images.
	f = walkAll(t, append(gzipOf(t, "", noteText), make([]byte, 10000)...), engine.Limits{})
	require.Empty(t, f.reasons)
}

func TestUnsupportedContainersAreNotClean(t *testing.T) {
	t.Parallel()
	for _, magic := range []string{"Rar!\x1a\x07\x01\x00", "MSCF\x00\x00\x00\x00", "\x1f\x9d\x90" + "\x00"} {
		f := walkAll(t, append([]byte(magic), make([]byte, 200)...), engine.Limits{})
		require.Equal(t, []string{threat.ReasonUnknownMethod}, f.codes())
	}
}

func TestName(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"":                       "(no name)",
		"etc/passwd":             "etc/passwd",
		"mit-ümlaut":             "mit-ümlaut",
		"latin\xfc":              `latin\xfc`,
		"two\nlines\x1b[31m":     `two\nlines\x1b[31m`,
		"gnp.\u202eexe":          `gnp.\u202eexe`,
		strings.Repeat("x", 512): strings.Repeat("x", 512),
		strings.Repeat("ü", 400): strings.Repeat("ü", 127) + "…" + strings.Repeat("ü", 127),
	} {
		require.Equal(t, want, Name(in))
	}
	require.LessOrEqual(t, len(Name(strings.Repeat("\xff", 1<<20))), maxName)
}
