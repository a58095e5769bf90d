//go:build cgo

package builtin_test

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/ruleset"
	"github.com/lazaret/lazaret/internal/engine/yara"
	"github.com/lazaret/lazaret/internal/signature/builtin"
)

// scanner compiles the built-in rules and returns what matches them, and
// their descriptions.
func scanner(t *testing.T) (*yara.Scanner, []ruleset.Metadata) {
	t.Helper()
	var sources []ruleset.Source
	require.NoError(t, fs.WalkDir(builtin.Rules(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(name) != ".yar" {
			return err
		}
		text, err := fs.ReadFile(builtin.Rules(), name)
		sources = append(sources, ruleset.Source{Name: name, Text: text})
		return err
	}))
	c, err := yara.Compile(sources)
	require.NoError(t, err)
	defer c.Close()
	require.Empty(t, c.Errors)
	require.Empty(t, c.Warnings, "a rule is slow")
	readers := map[ruleset.Class]io.Reader{}
	for _, class := range ruleset.Classes {
		var buf bytes.Buffer
		require.NoError(t, c.Write(class, &buf))
		readers[class] = &buf
	}
	s, err := yara.Load(readers)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	return s, c.Rules
}

func matches(t *testing.T, s *yara.Scanner, data []byte) []string {
	t.Helper()
	found, err := s.Inspect(t.Context(), &engine.Content{Data: data, Size: int64(len(data))})
	require.NoError(t, err)
	names := []string{}
	for _, d := range found {
		names = append(names, d.Signature)
	}
	return names
}

func TestRulesAgainstSamples(t *testing.T) {
	s, rules := scanner(t)
	bad, twin := map[string]bool{}, map[string]bool{}
	for _, sample := range builtin.Samples() {
		if strings.Contains(sample.Signature, ".") {
			continue // a hash
		}
		got := matches(t, s, sample.Data)
		if sample.Signature == "" {
			require.Empty(t, got, "%s is harmless", sample.Name)
			rule, _, _ := strings.Cut(sample.Name, ".")
			twin[rule] = true
			continue
		}
		require.Contains(t, got, sample.Signature, sample.Name)
		bad[sample.Signature] = true
	}
	require.GreaterOrEqual(t, len(rules), 12)
	for _, r := range rules {
		require.True(t, bad[r.Name], "%s has no sample", r.Name)
		if !strings.HasPrefix(r.Name, "Lazaret_Test_") {
			require.True(t, twin[r.Name], "%s has no harmless twin", r.Name)
			require.Regexp(t, regexp.MustCompile(`^T[0-9]{4}(\.[0-9]{3})?$`), r.Technique, r.Name)
		}
		require.NotEmpty(t, r.Description, r.Name)
		require.Equal(t, "Lazaret", r.Author, r.Name)
	}
}

// A program that carries scripts in itself, as the compiled form of this very
// package does, is none.
func TestRulesAgainstOwnPackage(t *testing.T) {
	s, _ := scanner(t)
	object := filepath.Join(t.TempDir(), "builtin.a")
	out, err := exec.CommandContext(t.Context(), "go", "build", "-o", object, ".").CombinedOutput()
	require.NoError(t, err, string(out))
	data, err := os.ReadFile(object)
	require.NoError(t, err)
	require.Empty(t, matches(t, s, data))
}

// Nothing in this source tree may match: neither the rules nor the samples as
// they are stored, nor the documentation.
func TestRulesAgainstOwnTree(t *testing.T) {
	s, _ := scanner(t)
	root, err := filepath.Abs("../../..")
	require.NoError(t, err)
	n := 0
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (d.Name() == ".git" || d.Name() == "node_modules" || d.Name() == "bin" || d.Name() == ".state") {
			return fs.SkipDir
		}
		if !d.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if os.IsNotExist(err) {
			return nil // somebody's temporary file
		}
		require.NoError(t, err)
		require.Empty(t, matches(t, s, data), path)
		n++
		return nil
	}))
	require.Greater(t, n, 50)
}
