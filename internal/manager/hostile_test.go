package manager

import (
	"bytes"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/manager/limit"
)

// TestUntarHoles: a few kilobytes of archive must not become a terabyte.
func TestUntarHoles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "rules.yar"))
	require.NoError(t, err)
	require.NoError(t, f.Truncate(1<<40))
	require.NoError(t, f.Close())
	archive, err := exec.Command("tar", "-C", dir, "-c", "-S", "--format=posix", "rules.yar").Output()
	require.NoError(t, err)
	require.Less(t, len(archive), 1<<20)

	out := t.TempDir()
	require.ErrorContains(t, untar(bytes.NewReader(archive), out, 1<<20), "too large")
	info, err := os.Stat(filepath.Join(out, "rules.yar"))
	require.NoError(t, err)
	require.LessOrEqual(t, info.Size(), int64(1<<20+1))
}

// TestStrangersFillNoLog: calls of public routes that fail before anything
// counts attempts write a bounded number of audit entries.
func TestStrangersFillNoLog(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.denials = limit.New(3, time.Hour)
	logged := func() int64 {
		require.NoError(t, b.appender.Flush(t.Context()))
		return b.audit.Size()
	}
	before := logged()
	for range 20 {
		resp, err := http.Post(b.url+"/api/v1/sessions", "application/json", strings.NewReader("{"))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.GreaterOrEqual(t, resp.StatusCode, 400)
	}
	require.Equal(t, before+3, logged())
}

// TestStrangersLockNobodyOut: one address making up names uses up its own
// attempts only.
func TestStrangersLockNobodyOut(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.logins = limit.New(1, time.Hour)
	login := func(name string) int {
		resp, err := http.Post(b.url+"/api/v1/sessions", "application/json", strings.NewReader(`{"name":"`+name+`","password":"wrong"}`))
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	require.Equal(t, http.StatusUnauthorized, login("a"))
	require.Equal(t, http.StatusTooManyRequests, login("b"))
	ok, _ := b.logins.Allow("name b")
	require.True(t, ok, "a refused address costs no name an attempt")
}
