package cli_test

import (
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/cli"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

const root = "../.."

// sources yields the Go files that are part of the programs.
func sources(t *testing.T, f func(path, text string)) {
	t.Helper()
	for _, top := range []string{"internal", "cmd"} {
		require.NoError(t, filepath.WalkDir(filepath.Join(root, top), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			b, err := os.ReadFile(path)
			if err == nil {
				f(path, string(b))
			}
			return err
		}))
	}
}

func document(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	require.NoError(t, err)
	return string(b)
}

// TestConditionsAreDocumented keeps the table of docs/using.md complete and in
// step: every code that the programs raise, and no other.
func TestConditionsAreDocumented(t *testing.T) {
	t.Parallel()
	constant := regexp.MustCompile(`(?m)\b[cC]ondition[A-Z]\w*\s*=\s*"([a-z_]+)"`)
	literal := regexp.MustCompile(`threat\.Condition\{\s*Code:\s*"([a-z_]+)"`)
	raised := map[string]bool{}
	sources(t, func(_, text string) {
		for _, re := range []*regexp.Regexp{constant, literal} {
			for _, m := range re.FindAllStringSubmatch(text, -1) {
				raised[m[1]] = true
			}
		}
	})
	require.Greater(t, len(raised), 25)
	_, table, found := strings.Cut(document(t, "docs/using.md"), "## Status and conditions")
	require.True(t, found)
	rows := regexp.MustCompile("(?m)^\\| `([a-z_]+)` \\| ([a-z]+) \\|").FindAllStringSubmatch(table, -1)
	var codes []string
	for _, r := range rows {
		codes = append(codes, r[1])
		require.True(t, raised[r[1]], "docs/using.md explains %s, which nobody raises", r[1])
		require.Positive(t, threat.Severity(r[2]).Rank(), r[0])
		delete(raised, r[1])
	}
	require.Empty(t, raised, "docs/using.md does not explain these conditions")
	require.True(t, slices.IsSorted(codes), "the table is sorted by code")
}

// TestReasonsAreDocumented does the same for the reasons of verdicts.
func TestReasonsAreDocumented(t *testing.T) {
	t.Parallel()
	text := document(t, "docs/using.md")
	found := regexp.MustCompile(`Reason[A-Z]\w*\s*=\s*"([a-z_]+)"`).FindAllStringSubmatch(document(t, "internal/threat/threat.go"), -1)
	require.Greater(t, len(found), 15)
	for _, m := range found {
		require.Contains(t, text, "`"+m[1]+"`")
	}
}

// TestPolicyExamples parses the YAML examples of docs/policies.md.
func TestPolicyExamples(t *testing.T) {
	t.Parallel()
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(document(t, "docs/policies.md"), -1)
	require.Greater(t, len(examples), 4)
	for _, e := range examples {
		list, err := policy.Parse(strings.NewReader(e[1]))
		require.NoError(t, err, e[1])
		require.Len(t, list, 1)
	}
}

// TestPolicyDefaults keeps the table of docs/policies.md in step with the
// built-in policy.
func TestPolicyDefaults(t *testing.T) {
	t.Parallel()
	text := document(t, "docs/policies.md")
	d := policy.Default().Spec
	row := func(key string) string {
		m := regexp.MustCompile("(?m)^\\| `" + regexp.QuoteMeta(key) + "` \\| (.*?) \\|").FindStringSubmatch(text)
		require.NotNil(t, m, key)
		return strings.Trim(m[1], "`")
	}
	list := func(actions []threat.Action) string {
		var s []string
		for _, a := range actions {
			s = append(s, string(a))
		}
		return "[" + strings.Join(s, ", ") + "]"
	}
	require.Equal(t, string(d.Mode), row("mode"))
	require.Equal(t, string(d.Partial), row("partial"))
	require.Equal(t, string(d.FailMode), row("failMode"))
	require.Equal(t, d.Deadline.String(), row("deadline"))
	require.Equal(t, list(d.Actions.Critical), row("actions.critical"))
	require.Equal(t, list(d.Actions.High), row("actions.high"))
	require.Equal(t, list(d.Actions.Medium), row("actions.medium"))
	require.Equal(t, list(d.Actions.Low), row("actions.low"))
	require.Equal(t, "30", row("governor.actionsPerMinute"))
	require.Equal(t, 30, d.Governor.ActionsPerMinute)
	require.Equal(t, "5", row("governor.maxWorkloads"))
	require.Equal(t, 5, d.Governor.MaxWorkloads)
}

// TestExitCodesAreDocumented compares docs/using.md with the codes.
func TestExitCodesAreDocumented(t *testing.T) {
	t.Parallel()
	text := document(t, "docs/using.md")
	for _, code := range []int{
		cli.ExitClean, cli.ExitThreat, cli.ExitError, cli.ExitPartial,
		cli.ExitUnreachable, cli.ExitDenied, cli.ExitRefused, cli.ExitCancelled,
	} {
		require.Contains(t, text, fmt.Sprintf("\n| %d | ", code))
	}
}

// TestCommandsInDocumentsExist runs --help of every command line that a
// document shows.
func TestCommandsInDocumentsExist(t *testing.T) {
	t.Parallel()
	line := regexp.MustCompile("(?m)(?:^|[|`(] ?|sudo |bin/)lazaret ((?:[a-z-]+ ?)+)")
	n := 0
	for _, name := range []string{"README.md", "docs/install.md", "docs/using.md", "docs/policies.md", "docs/signatures.md", "docs/configuration.md", "docs/threat-model.md"} {
		for _, m := range line.FindAllStringSubmatch(document(t, name), -1) {
			args := strings.Fields(m[1])
			c, rest, err := cli.New(env()).Find(args)
			require.NoError(t, err, "%s: lazaret %s", name, m[1])
			if c.HasSubCommands() && len(rest) > 0 {
				require.Contains(t, []string{"scans"}, c.Name(), "%s: lazaret %s", name, m[1])
			}
			n++
		}
	}
	require.Greater(t, n, 40)
}

// TestLinks checks that relative links of the documents lead somewhere.
func TestLinks(t *testing.T) {
	t.Parallel()
	var files []string
	for _, pattern := range []string{"*.md", "docs/*.md", "changelog/*.md", "changelog/unreleased/*.md", "bpf/*.md"} {
		found, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		files = append(files, found...)
	}
	require.Greater(t, len(files), 10)
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		for _, m := range link.FindAllSubmatch(b, -1) {
			u, err := url.Parse(string(m[1]))
			require.NoError(t, err)
			if u.Scheme != "" || u.Path == "" {
				continue
			}
			_, err = os.Stat(filepath.Join(filepath.Dir(f), u.Path))
			require.NoError(t, err, "%s links to %s", f, u.Path)
		}
	}
}
