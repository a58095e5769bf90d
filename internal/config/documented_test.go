package config

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// keys lists the dotted names of all keys below t.
func keys(t reflect.Type, prefix string) []string {
	var out []string
	for i := range t.NumField() {
		f := t.Field(i)
		name := prefix + strings.Split(f.Tag.Get("yaml"), ",")[0]
		if f.Type.Kind() == reflect.Struct {
			out = append(out, keys(f.Type, name+".")...)
			continue
		}
		out = append(out, name)
	}
	return out
}

// TestEveryKeyIsDocumented keeps docs/configuration.md complete and free of
// keys that are gone.
func TestEveryKeyIsDocumented(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	require.NoError(t, err)
	documented := map[string]bool{}
	table, _, _ := strings.Cut(string(b), "\n## ") // the first section has the table
	for line := range strings.Lines(table) {
		if key, ok := strings.CutPrefix(line, "| `"); ok {
			documented[key[:strings.IndexByte(key, '`')]] = true
		}
	}
	all := keys(reflect.TypeFor[Config](), "")
	require.Greater(t, len(all), 20)
	for _, k := range all {
		require.True(t, documented[k], "docs/configuration.md does not describe %s", k)
		delete(documented, k)
	}
	require.Empty(t, documented, "docs/configuration.md describes keys that do not exist")
}

// TestShippedFile compares deploy/lazaret.yaml, which shows the defaults, with
// the defaults.
func TestShippedFile(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join("..", "..", "deploy", "lazaret.yaml"))
	require.NoError(t, err)
	got, err := Parse(b)
	require.NoError(t, err)
	got.Protect.Paths, got.Engine.KnownGood = nil, nil // [] in the file
	require.Equal(t, Default(), got)
	for _, k := range keys(reflect.TypeFor[Config](), "") {
		last := k[strings.LastIndexByte(k, '.')+1:]
		require.Regexp(t, `(?m)^\s*(# )?`+last+`:`, string(b), "deploy/lazaret.yaml does not show %s", k)
	}
}

func TestFormat(t *testing.T) {
	t.Parallel()
	c := Default()
	c.Protect.Paths = []string{"/srv", "/a: b"}
	b, err := Format(c)
	require.NoError(t, err)
	got, err := Parse(b)
	require.NoError(t, err)
	c.Engine.KnownGood = []string{} // the file says [] for none
	require.Equal(t, c, got, "what Format writes, Parse reads")
	m, err := Map(c)
	require.NoError(t, err)
	require.Equal(t, "5s", m["failure"].(map[string]any)["deadline"])
	require.Equal(t, "/run/lazaret/manager.sock", c.ManagerSocket())
	require.Equal(t, "/run/lazaret/node.sock", c.NodeSocket())
}

func TestEngineProgram(t *testing.T) {
	t.Parallel()
	c := Default()
	c.Engine.Program = "/opt/engine"
	p, err := c.EngineProgram()
	require.NoError(t, err)
	require.Equal(t, "/opt/engine", p)
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"", "node: a\n", "failure: {deadline: 1s}\n", "{", "- x\n", "engine: {limits: {depth: -1}}\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := Parse(b)
		if err != nil {
			return
		}
		require.NoError(t, c.Validate())
		text, err := Format(c)
		require.NoError(t, err)
		again, err := Parse(text)
		require.NoError(t, err)
		require.Equal(t, c.StateDir, again.StateDir)
	})
}
