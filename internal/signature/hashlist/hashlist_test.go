package hashlist

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/threat"
)

var (
	md5Text    = strings.Repeat("0a", 16)
	sha1Text   = strings.Repeat("0b", 20)
	sha256Text = strings.Repeat("0C", 32)
)

func read(l Reader, text string) (got []string, refused []string) {
	l.Refused = func(e api.ImportError) { refused = append(refused, fmt.Sprintf("%s:%d: %s", e.File, e.Line, e.Text)) }
	for e, err := range l.Entries(strings.NewReader(text)) {
		if err != nil {
			panic(err)
		}
		got = append(got, fmt.Sprintf("%s %d %s %s", hex.EncodeToString(e.Key), e.Size, e.Name, e.Severity))
	}
	return got, refused
}

func TestEntries(t *testing.T) {
	t.Parallel()
	lower := strings.ToLower(sha256Text)
	for _, c := range []struct {
		name    string
		file    string
		format  Format
		text    string
		want    []string
		refused []string
	}{
		{
			name: "plain", file: "lists/bad.txt", format: Plain,
			text: "# comment\n\n" + md5Text + "\r\n" + sha1Text + "  *some file\n" + sha256Text + ",Trojan.X\n; x\n// y\n" + md5Text + " last",
			want: []string{
				md5Text + " -1 Hash.bad high", sha1Text + " -1 some file high",
				lower + " -1 Trojan.X high", md5Text + " -1 last high",
			},
		},
		{
			name: "plain errors", file: "bad.txt", format: Plain,
			text: "abc\n" + strings.Repeat("z", 32) + "\n" + md5Text + " a\x00b\n" + md5Text + " \xff\xfe\n" +
				strings.Repeat("x", MaxLine*3) + "\n" + md5Text + " " + strings.Repeat("n", 600) + "\n" + md5Text,
			want: []string{md5Text + " -1 Hash.bad high"},
			refused: []string{
				"bad.txt:1: a digest has 32, 40 or 64 hexadecimal digits, not 3 characters",
				"bad.txt:2: the digest is not hexadecimal",
				"bad.txt:3: the name contains control characters",
				"bad.txt:4: the name is not UTF-8",
				"bad.txt:5: the line is longer than 8192 bytes",
				"bad.txt:6: the name is longer than 512 bytes",
			},
		},
		{
			name: "clamav", file: "x.hdb", format: ClamAV,
			text: md5Text + ":544:Win.Test-1\n" + sha256Text + ":*:Unix.Test-2:73\n" + sha1Text + ":1:A:73:90\n#c\n\n",
			want: []string{md5Text + " 544 Win.Test-1 high", lower + " -1 Unix.Test-2 high", sha1Text + " 1 A high"},
		},
		{
			name: "clamav errors", file: "x.hsb", format: ClamAV,
			text: "a:b\n" + md5Text + ":-5:N\n" + md5Text + ":99999999999999999999:N\n" + md5Text + ":1:\n" + md5Text + "0:1:N\n1:2:3:4:5:6\n",
			refused: []string{
				"x.hsb:1: want digest:size:name, got 2 fields",
				"x.hsb:2: the size is neither a number of bytes nor *",
				"x.hsb:3: the size is neither a number of bytes nor *",
				"x.hsb:4: the name is empty",
				"x.hsb:5: a digest has 32, 40 or 64 hexadecimal digits, not 33 characters",
				"x.hsb:6: want digest:size:name, got 6 fields",
			},
		},
		{
			name: "malwarebazaar", file: "full.csv", format: CSV,
			text: "################\n# MalwareBazaar full dump (CSV) #\n#\n" +
				`# "first_seen_utc","sha256_hash","md5_hash","sha1_hash","reporter","file_name","file_type_guess","mime_type","signature","clamav"` + "\n" +
				`"2020-03-11 08:35:53", "` + sha256Text + `", "` + md5Text + `", "` + sha1Text + `", "abuse_ch", "a, b.exe", "exe", "application/x-dosexec", "Dridex", "n/a"` + "\n" +
				`"2020-03-11 08:35:54", "n/a", "` + md5Text + `", "` + sha1Text + `", "abuse_ch", "c.exe", "exe", "x", "n/a", "n/a"` + "\n" +
				`"2020", "nothing"` + "\n" + `"2020", "n/a"` + "\n# Number of entries: 2\n",
			want: []string{lower + " -1 Dridex high", sha1Text + " -1 Hash.full high"},
			refused: []string{
				"full.csv:7: a digest has 32, 40 or 64 hexadecimal digits, not 7 characters",
				"full.csv:8: the line has no digest",
			},
		},
		{
			name: "other columns", file: "own.csv", format: CSV,
			text: "signature,md5_hash\nEvil," + md5Text + "\n",
			want: []string{md5Text + " -1 Evil high"},
		},
		{
			name: "canonical", file: "c", format: Canonical,
			text:    md5Text + ":*:low:A:b c\n" + lower + ":7:critical:X\n" + md5Text + ":*:bad:A\n" + md5Text + ":*:low:\nx\n",
			want:    []string{md5Text + " -1 A:b c low", lower + " 7 X critical"},
			refused: []string{"c:3: the severity is unknown", "c:4: the name is empty", "c:5: want digest:size:severity:name"},
		},
		{name: "empty", file: "e", format: Plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, refused := read(Reader{File: c.file, Format: c.format, Severity: threat.High}, c.text)
			require.Equal(t, c.want, got)
			require.Equal(t, c.refused, refused)
		})
	}
}

func TestReadError(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	r := io.MultiReader(strings.NewReader(md5Text+"\n"), iotest.ErrReader(boom))
	n := 0
	for _, err := range (Reader{File: "f", Format: Plain}).Entries(r) {
		if n++; n == 2 {
			require.ErrorIs(t, err, boom)
		}
	}
	require.Equal(t, 2, n)
	for range (Reader{File: "f", Format: Plain}).Entries(strings.NewReader(md5Text + "\n" + md5Text)) {
		break // stopping early must not panic
	}
}

func TestDetectFormat(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		file, head string
		want       Format
	}{
		{"a.HDB", "", ClamAV},
		{"a.hsu", "", ClamAV},
		{"a.csv", "", CSV},
		{"a.txt", "# c\n\n" + md5Text + "\n", Plain},
		{"a", sha256Text + " x", Plain},
		{"a", sha1Text + ":*:n", ClamAV},
		{"README.md", "Read me\n", ""},
		{"a", "abcdef\n", ""},
		{"a", "", ""},
	} {
		got, ok := DetectFormat(c.file, []byte(c.head))
		require.Equal(t, c.want, got, c.file+c.head)
		require.Equal(t, c.want != "", ok)
	}
	require.Equal(t, threat.Medium, DefaultSeverity("x.hsu"))
	require.Equal(t, threat.High, DefaultSeverity("x.hsb"))
}

func FuzzEntries(f *testing.F) {
	f.Add(md5Text+" name\n#\n", uint8(0))
	f.Add(`"2020","`+sha256Text+`","n/a"`+"\n# \"sha256_hash\"\n", uint8(1))
	f.Add(sha1Text+":*:n:1\n", uint8(2))
	f.Add(md5Text+":*:low:a:b\n", uint8(3))
	f.Fuzz(func(t *testing.T, text string, format uint8) {
		l := Reader{File: "f", Format: []Format{Plain, CSV, ClamAV, Canonical}[format%4], Severity: threat.High}
		lines := 0
		l.Refused = func(e api.ImportError) { lines++; require.Positive(t, e.Line) }
		for e, err := range l.Entries(strings.NewReader(text)) {
			require.NoError(t, err)
			_, ok := hashset.BySize(len(e.Key))
			require.True(t, ok)
			require.GreaterOrEqual(t, e.Size, hashset.AnySize)
			require.NoError(t, checkName(e.Name))
			lines++
			again, refused := read(Reader{File: "f", Format: Canonical}, string(AppendCanonical(nil, e)))
			require.Empty(t, refused)
			require.Len(t, again, 1)
		}
		require.LessOrEqual(t, lines, strings.Count(text, "\n")+1)
		DetectFormat("f", []byte(text))
	})
}

func BenchmarkPlain(b *testing.B) {
	text := strings.Repeat(sha256Text+" Some.Family\n", 1000)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		for range (Reader{File: "f", Format: Plain}).Entries(strings.NewReader(text)) {
			continue
		}
	}
}
