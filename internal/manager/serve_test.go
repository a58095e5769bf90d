package manager

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
)

// start runs a manager on a socket until the test ends or stop is called.
func start(t *testing.T, m *Manager) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	c, err := api.NewClient(api.ClientConfig{Socket: m.Socket})
	require.NoError(t, err)
	defer c.Close()
	require.Eventually(t, func() bool {
		return c.Do(context.Background(), "GET", "/healthz", nil, nil) == nil
	}, 5*time.Second, 5*time.Millisecond)
	return func() error { cancel(); return <-done }
}

func TestSocketAndLocalRoot(t *testing.T) {
	t.Parallel()
	m := newManager(t, t.TempDir())
	m.Socket = filepath.Join(t.TempDir(), "run", "m.sock")
	m.Config.Listen = "127.0.0.1:0"
	stop := start(t, m)
	c, err := api.NewClient(api.ClientConfig{Socket: m.Socket})
	require.NoError(t, err)
	var me api.Me
	err = c.Get(t.Context(), "/api/v1/me", &me)
	if os.Getuid() == 0 {
		require.NoError(t, err)
		require.Equal(t, "user:root (local)", me.Actor)
		require.Equal(t, []string{"local"}, me.Roles)
		var link api.SetupLink
		require.NoError(t, c.Post(t.Context(), "/api/v1/setup-link", nil, &link))
		require.NotEmpty(t, link.Token)
	} else {
		wantProblem(t, err, 401, api.ProblemUnknown)
	}
	info, err := os.Stat(m.Socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o666), info.Mode().Perm(), "credentials decide, not the mode")

	_, err = listenUnix(m.Socket)
	require.ErrorContains(t, err, "another manager answers there")
	require.NoError(t, stop())
	require.NoError(t, m.Close())
	err = c.Get(t.Context(), "/api/v1/me", &me)
	require.ErrorIs(t, err, api.ErrUnreachable)

	// A socket left behind by a killed process is replaced.
	l, err := net.Listen("unix", m.Socket)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false)
	require.NoError(t, l.Close())
	l, err = listenUnix(m.Socket)
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func TestPeerCredentialsOfOthers(t *testing.T) {
	t.Parallel()
	b := bench(t)
	for uid, want := range map[uint32]string{0: localRoot, 1000: "", 65534: ""} {
		ctx := context.WithValue(t.Context(), peerKey{}, peer{uid: uid})
		req := newRequest(t, ctx, b.url+"/api/v1/me")
		p, err := b.identify(req)
		require.NoError(t, err)
		require.Equal(t, want, p.Name)
		require.True(t, p.Local)
	}
	// root of a container that the socket was mounted into
	p, err := b.identify(newRequest(t, context.WithValue(t.Context(), peerKey{}, peer{foreign: true}), b.url))
	require.NoError(t, err)
	require.Empty(t, p.Name)
	require.True(t, kindred(int32(os.Getpid())))
	require.False(t, kindred(0), "outside of our pid namespace")
	// root with a token is the token's user: what they do is theirs.
	req := newRequest(t, context.WithValue(t.Context(), peerKey{}, peer{}), b.url)
	req.Header.Set("Authorization", "Bearer "+b.secrets["anna"])
	p, err = b.identify(req)
	require.NoError(t, err)
	require.Equal(t, "user:anna", p.Name)
	req = newRequest(t, t.Context(), b.url)
	req.RemoteAddr = "192.0.2.7:1234"
	p, err = b.identify(req)
	require.NoError(t, err)
	require.False(t, p.Local)
	require.Equal(t, "192.0.2.7", p.From)
}

func TestOnlyLoopbackWithoutTLS(t *testing.T) {
	t.Parallel()
	for addr, ok := range map[string]bool{
		"127.0.0.1:0": true, "localhost:0": true, "[::1]:0": true,
		"0.0.0.0:0": false, ":0": false, "192.0.2.1:0": false, "example.com:0": false, "nonsense": false,
	} {
		m := &Manager{Config: Config{Listen: addr}}
		_, err := m.tls()
		require.Equal(t, ok, err == nil, addr)
	}
	m := &Manager{Config: Config{Listen: "0.0.0.0:0", TLSCert: "/nowhere", TLSKey: "/nowhere"}}
	_, err := m.tls()
	require.Error(t, err)
}
