package cli_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/cli"
)

// env is what a command gets in tests that need nothing of it.
func env() cli.Env {
	return cli.Env{
		Stdin: strings.NewReader(""), Stdout: &bytes.Buffer{}, Stderr: &bytes.Buffer{},
		Getenv: func(string) string { return "" }, Version: "1.2.3",
	}
}

// TestCommandsExplainThemselves keeps what every command has: a line for lists,
// an example that starts with its name, and a check of its arguments.
func TestCommandsExplainThemselves(t *testing.T) {
	t.Parallel()
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		path := c.CommandPath()
		require.NotEmpty(t, c.Short, path)
		require.False(t, strings.HasSuffix(c.Short, "."), "%s: the short text is a line, not a sentence", path)
		require.LessOrEqual(t, len(c.Short), 80, path)
		require.NotNil(t, c.Args, "%s: say which arguments it takes", path)
		require.NotNil(t, c.RunE, "%s: errors are returned", path)
		if !c.Hidden {
			require.Contains(t, c.Example, path, "%s: give an example", path)
			for _, line := range strings.Split(c.Example, "\n") {
				require.True(t, strings.HasPrefix(line, "  "), "%s: examples are indented by two spaces", path)
			}
		}
		for _, line := range strings.Split(c.Long, "\n") {
			require.LessOrEqual(t, len([]rune(line)), 80, "%s: %q", path, line)
		}
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(cli.New(env()))
}

// TestReference compares docs/cli with the command tree; -update writes it.
func TestReference(t *testing.T) {
	t.Parallel()
	golden, dir := filepath.Join("..", "..", "docs", "cli"), t.TempDir()
	require.Equal(t, 0, cli.Main(context.Background(), []string{"docs", dir}, env()))
	pages, err := filepath.Glob(filepath.Join(dir, "*.md"))
	require.NoError(t, err)
	require.Greater(t, len(pages), 40)
	if *update {
		require.NoError(t, os.RemoveAll(golden))
		require.NoError(t, os.CopyFS(golden, os.DirFS(dir)))
	}
	old, err := filepath.Glob(filepath.Join(golden, "*.md"))
	require.NoError(t, err)
	require.Len(t, old, len(pages), "pages of commands that are gone or new: run go test ./internal/cli -update")
	for _, page := range pages {
		want, err := os.ReadFile(page)
		require.NoError(t, err)
		got, err := os.ReadFile(filepath.Join(golden, filepath.Base(page)))
		require.NoError(t, err)
		require.Equal(t, string(want), string(got), "docs/cli is not what the commands say: run go test ./internal/cli -update")
	}
}

// TestLocalScanMissing covers a program built without a local scanner.
func TestLocalScanMissing(t *testing.T) {
	t.Parallel()
	e := env()
	stderr := e.Stderr.(*bytes.Buffer)
	require.Equal(t, cli.ExitError, cli.Main(context.Background(), []string{"scan", "--no-daemon", "tree_test.go"}, e))
	require.Contains(t, stderr.String(), "cannot scan without the daemon")
}
