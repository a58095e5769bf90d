package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
)

func TestProgressLine(t *testing.T) {
	t.Parallel()
	sum := api.ScanSummary{Files: 200, Bytes: 3 << 20, Malicious: 1}
	known := sum
	known.Total = 1000
	for name, tc := range map[string]struct {
		sum     api.ScanSummary
		path    string
		elapsed time.Duration
		width   int
		want    string
	}{
		"rate":            {sum, "", 4 * time.Second, 80, "200 files, 3.0 MiB, 50 files/s, 1 threats"},
		"time left":       {known, "", 4 * time.Second, 80, "200 of 1000 files, 3.0 MiB, 50 files/s, 16s left, 1 threats"},
		"too early":       {known, "", time.Second, 80, "200 of 1000 files, 3.0 MiB, 200 files/s, 1 threats"},
		"path":            {sum, "/srv/\x1b[2Ja", 4 * time.Second, 80, `200 files, 3.0 MiB, 50 files/s, 1 threats  /srv/\x1b[2Ja`},
		"long path":       {sum, "/srv/very/long/path/to/somewhere", 4 * time.Second, 60, "200 files, 3.0 MiB, 50 files/s, 1 threats  …th/to/somewhere"},
		"no room":         {sum, "/srv/file", 4 * time.Second, 45, "200 files, 3.0 MiB, 50 files/s, 1 threats"},
		"narrow terminal": {sum, "/srv/file", 4 * time.Second, 20, "200 files, 3.0 MiB,"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := progressLine(&tc.sum, tc.path, tc.elapsed, tc.width)
			require.Equal(t, tc.want, got)
			require.Less(t, utf8.RuneCountInString(got), tc.width)
		})
	}
}

func TestProgressHides(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := newProgress(&b, false)
	p.update(&api.ScanSummary{Files: 1}, "x")
	p.end()
	require.Empty(t, b.String())
	p = newProgress(&b, true)
	p.update(&api.ScanSummary{Files: 1}, "x")
	p.hide()
	p.hide()
	require.Regexp(t, `^\r\x1b\[K1 files.*\r\x1b\[K$`, b.String())
}

func TestResolve(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(filepath.Join(dir, "real/sub"), 0o700))
	require.NoError(t, os.Symlink("real", filepath.Join(dir, "link")))
	r := api.ScanRequest{Image: filepath.Join(dir, "link")}
	n, err := resolve(&r, []string{filepath.Join(dir, "link/sub"), "-", filepath.Join(dir, "none\xff"), "."})
	require.NoError(t, err)
	cwd, err := os.Getwd()
	require.NoError(t, err)
	cwd, err = filepath.EvalSymlinks(cwd)
	require.NoError(t, err)
	require.Equal(t, []string{filepath.Join(dir, "real/sub"), "-", filepath.Join(dir, "none\xff"), cwd}, r.Paths)
	require.Equal(t, filepath.Join(dir, "real"), r.Image)
	require.False(t, sendable(&r))
	require.Equal(t, dir+"/link/sub/x", n.show(dir+"/real/sub/x"), "the nearest root names a file")
	require.Equal(t, dir+"/link!/x", n.show(dir+"/real!/x"))
	require.Equal(t, dir+`/none\xff`, n.show(dir+`/none\xff`))
	require.Equal(t, "./x", n.show(cwd+"/x"))
	require.Equal(t, dir+"/realx", n.show(dir+"/realx"), "a longer name is another file")
	for typed, want := range map[string]string{"/": "/etc/x", "..": "../etc/x", "/proc/self/root": "/proc/self/root/etc/x"} {
		require.Equal(t, want, names{{"/", typed}}.show("/etc/x"))
	}
}

func TestSentences(t *testing.T) {
	t.Parallel()
	require.Equal(t, "boom (request r1)", sentence(&api.Problem{Status: 500, Title: "boom", RequestID: "r1"}))
	require.Equal(t, ExitRefused, exitCode(&api.Problem{Status: 409, Type: api.ProblemRefused}))
	require.Equal(t, ExitError, exitCode(&api.Problem{Status: 409, Type: api.ProblemConflict}))
}

func TestBytesText(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1536: "1.5 KiB", 5 << 30: "5.0 GiB", 1 << 62: "4096.0 PiB"} {
		require.Equal(t, want, bytesText(n))
	}
}
