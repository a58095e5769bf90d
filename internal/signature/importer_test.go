package signature

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/threat"
)

const (
	md5Bad    = "0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a"
	sha256Bad = "0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c0c"
)

func tree(pairs ...string) iter.Seq2[File, error] {
	m := fstest.MapFS{}
	for i := 0; i < len(pairs); i += 2 {
		m[pairs[i]] = &fstest.MapFile{Data: []byte(pairs[i+1])}
	}
	return FromFS(m, ".")
}

func TestImport(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	temp := t.TempDir()
	i := fakeImporter(r, temp)
	report, err := i.Import(t.Context(), Import{
		By: "user:test", Comment: "first",
		Files: tree(
			"rules/a.yar", "Bad evil\nbroken\nOther xyz\n",
			"lists/one.txt", sha256Bad+"\nnonsense\n"+md5Bad+"\n",
			"lists/two.hsb", sha256Bad+":*:Again\n"+sha256Bad[:62]+"ff:10:New\n",
			"README.md", "What this is\n",
			"empty.txt", "# "+md5Bad+"\n",
		),
	})
	require.NoError(t, err)
	require.NotNil(t, report.Bundle)
	require.Equal(t, "passed", report.SelfTest)
	require.Equal(t, 2, report.Rules)
	require.EqualValues(t, 3, report.Hashes, "the same hash in two lists counts once")
	require.ElementsMatch(t, []api.ImportError{
		{File: "rules/a.yar", Line: 2, Text: "syntax error"},
		{File: "lists/one.txt", Line: 2, Text: "a digest has 32, 40 or 64 hexadecimal digits, not 8 characters"},
		{File: "README.md", Text: "neither YARA rules (.yar, .yara) nor a list of hashes"},
		{File: "empty.txt", Text: "neither YARA rules (.yar, .yara) nor a list of hashes"},
	}, report.Errors)
	require.Len(t, r.Active().Sources, 3)
	require.Equal(t, []hashset.Algorithm{hashset.SHA256, hashset.MD5}, r.Active().Sources[0].Algorithms)

	// The next import keeps what is there, and does not repeat its errors.
	report, err = i.Import(t.Context(), Import{By: "user:test", Files: tree("rules/b.yara", "Third abc\n")})
	require.NoError(t, err)
	require.EqualValues(t, 2, report.Bundle.Epoch)
	require.Equal(t, 3, report.Rules)
	require.Empty(t, report.Errors)

	// The same again changes nothing.
	report, err = i.Import(t.Context(), Import{By: "user:test", Files: tree("rules/b.yara", "Third abc\n")})
	require.NoError(t, err)
	require.EqualValues(t, 2, report.Bundle.Epoch)
	require.Contains(t, report.SelfTest, "nothing changes")

	// Replacing and removing.
	report, err = i.Import(t.Context(), Import{By: "user:test", Remove: []string{"lists/", "rules/b.yara"}, Files: tree("rules/a.yar", "Bad evil\n")})
	require.NoError(t, err)
	require.Equal(t, 1, report.Rules)
	require.Zero(t, report.Hashes)
	require.Len(t, r.Active().Sources, 1)

	// A dry run changes nothing.
	report, err = i.Import(t.Context(), Import{By: "user:test", DryRun: true, Files: tree("rules/c.yar", "C ccc\n")})
	require.NoError(t, err)
	require.Nil(t, report.Bundle)
	require.Equal(t, 2, report.Rules)
	require.EqualValues(t, 3, r.Active().Epoch)

	report, err = i.Import(t.Context(), Import{Files: tree("notes", "text\n")})
	require.NoError(t, err)
	require.Nil(t, report.Bundle)
	require.Contains(t, report.SelfTest, "nothing to import")

	left, err := os.ReadDir(temp)
	require.NoError(t, err)
	require.Empty(t, left)
}

func TestImportFailsSelfTest(t *testing.T) {
	t.Parallel()
	good := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(good, "sub"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(good, "sub", "libc.so"), []byte("important program"), 0o600))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(good, "link")))
	r := openTest(t, t.TempDir(), nil)
	i := fakeImporter(r, t.TempDir(), good)
	for want, rules := range map[string]string{
		"failed: Wide matches the known-good file " + good + "/sub/libc.so":   "Bad evil\nWide program\n",
		"failed: nothing detects the known-bad sample bad sample as Bad":      "Other evil\n",
		"failed: Broad matches the known-good file good sample":               "Bad evil\nBroad harmless\n",
		"failed: nothing detects the known-bad sample bad sample as Bad; All": "All i\n",
		"failed: Lazaret_Broad matches the known-good file twin":              "Bad evil\nLazaret_Broad talks\n",
	} {
		report, err := i.Import(t.Context(), Import{Files: tree("a.yar", rules)})
		require.NoError(t, err)
		require.Contains(t, report.SelfTest, want)
		require.Nil(t, report.Bundle)
		require.Nil(t, r.Active(), "nothing was published")
	}
	i.c.Inspect = func(_ context.Context, dir string, _ threat.Epoch) (Inspection, error) {
		f, err := newFakeInspection(dir)
		if f != nil {
			f.crash = "important"
		}
		return f, err
	}
	report, err := i.Import(t.Context(), Import{Files: tree("a.yar", "Bad evil\n")})
	require.NoError(t, err)
	require.Contains(t, report.SelfTest, "libc.so: it crashed the engine")

	i.c.Corpus.Good = []string{filepath.Join(good, "missing")}
	_, err = i.Import(t.Context(), Import{Files: tree("a.yar", "Bad evil\n")})
	require.ErrorContains(t, err, "reading the known-good files")
}

// What only looks like malware says something about our own rules.
func TestOthersMayMatchTwins(t *testing.T) {
	t.Parallel()
	i := fakeImporter(openTest(t, t.TempDir(), nil), t.TempDir())
	report, err := i.Import(t.Context(), Import{Files: tree("a.yar", "Bad evil\nTheirs talks\n")})
	require.NoError(t, err)
	require.Equal(t, selfTestPassed, report.SelfTest)
	require.NotNil(t, report.Bundle)
}

func TestImportErrors(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	i := fakeImporter(r, t.TempDir())
	boom := errors.New("boom")
	i.c.Compiler = fakeCompiler{err: boom}
	_, err := i.Import(t.Context(), Import{Files: tree("a.yar", "Bad evil\n")})
	require.ErrorIs(t, err, boom)
	_, err = i.Import(t.Context(), Import{Files: func(yield func(File, error) bool) { yield(File{}, boom) }})
	require.ErrorIs(t, err, boom)
	i = fakeImporter(r, t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = i.Import(ctx, Import{Files: tree("a.yar", "Bad evil\n")})
	require.ErrorIs(t, err, context.Canceled)
	report, err := i.Import(t.Context(), Import{DryRun: true, Files: func(yield func(File, error) bool) {
		_ = yield(File{Name: "../../etc/x.yar", Content: strings.NewReader("A b")}, nil) &&
			yield(File{Name: "big.yar", Content: zeros{}}, nil) &&
			yield(File{Name: "a.yar", Content: strings.NewReader("Bad evil\n")}, nil) &&
			yield(File{Name: "a.yar", Content: strings.NewReader("Other\n")}, nil)
	}})
	require.NoError(t, err)
	require.Equal(t, "passed", report.SelfTest)
	require.Len(t, report.Errors, 3)
	require.Contains(t, report.Errors[0].Text, "name cannot be used")
	require.Contains(t, report.Errors[1].Text, "more than")
	require.Contains(t, report.Errors[2].Text, "comes twice")
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestBuiltinIsPublishedOnce(t *testing.T) {
	t.Parallel()
	r := openTest(t, t.TempDir(), nil)
	i := fakeImporter(r, t.TempDir())
	i.c.Corpus = Corpus{}
	report, err := i.Builtin(t.Context())
	require.NoError(t, err)
	require.NotNil(t, report.Bundle)
	require.EqualValues(t, 1, report.Hashes)
	for _, s := range r.Active().Sources {
		require.True(t, strings.HasPrefix(s.Name, "lazaret/"))
	}
	_, err = i.Import(t.Context(), Import{By: "user:test", Files: tree("own.yar", "Own own\n")})
	require.NoError(t, err)
	report, err = i.Builtin(t.Context())
	require.NoError(t, err)
	require.Nil(t, report.Bundle)
	require.EqualValues(t, 2, r.Active().Epoch)
	_, err = i.Import(t.Context(), Import{By: "user:test", Files: tree("lazaret/test.yar", "Old old\n")})
	require.NoError(t, err)
	report, err = i.Builtin(t.Context())
	require.NoError(t, err)
	require.NotNil(t, report.Bundle, "a changed built-in source is put back")
	require.Contains(t, fmt.Sprint(r.Active().Sources), "own.yar")
}

func FuzzParseManifest(f *testing.F) {
	f.Add([]byte(`{"epoch":1,"sources":[{"name":"a","kind":"yara","size":1}]}`))
	f.Add([]byte(`{"epoch":1,"sources":[{"name":"../a","kind":"hashes","size":-1}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := ParseManifest(data)
		if err != nil {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.NotZero(t, m.Epoch)
		for _, s := range m.Sources {
			require.True(t, filepath.IsLocal(s.Name), hex.EncodeToString([]byte(s.Name)))
		}
	})
}
