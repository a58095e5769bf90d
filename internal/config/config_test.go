package config

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := Parse([]byte("protect:\n  paths: [/srv]\nfailure: {mode: closed, deadline: 2s}\nengine:\n  limits: {depth: 3}\n"))
	require.NoError(t, err)
	require.Equal(t, []string{"/srv"}, c.Protect.Paths)
	require.Equal(t, "closed", c.Failure.Mode)
	require.Equal(t, 2*time.Second, c.Failure.Deadline)
	require.Equal(t, 3, c.Engine.Limits.Depth)
	require.Equal(t, Default().Engine.Limits.Members, c.Engine.Limits.Members, "other limits keep their defaults")
	require.Equal(t, "127.0.0.1:7480", c.Listen)

	empty, err := Parse(nil)
	require.NoError(t, err)
	require.Equal(t, Default(), empty)
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct{ in, want string }{
		"unknown key":       {"protekt: {}\n", "protekt"},
		"relative path":     {"protect: {paths: [srv]}\n", "absolute"},
		"fail mode":         {"failure: {mode: maybe}\n", "failure.mode"},
		"deadline":          {"failure: {deadline: 10m}\n", "deadline"},
		"open to the world": {"listen: 0.0.0.0:7480\n", "needs tls"},
		"half of tls":       {"tls: {cert: /x}\n", "belong together"},
		"two documents":     {"node: a\n---\nnode: b\n", "more than one"},
		"negative limit":    {"engine: {limits: {total: -1}}\n", "negative"},
		"not YAML":          {"{", "yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse([]byte(tc.in))
			require.ErrorContains(t, err, tc.want)
		})
	}
}

func TestLoad(t *testing.T) {
	t.Parallel()
	_, err := Load(filepath.Join(t.TempDir(), "none.yaml"))
	require.ErrorIs(t, err, os.ErrNotExist)
	p := filepath.Join(t.TempDir(), "lazaret.yaml")
	require.NoError(t, os.WriteFile(p, []byte("node: n1\n"), 0o600))
	c, err := Load(p)
	require.NoError(t, err)
	require.Equal(t, "n1", c.Node)
}
