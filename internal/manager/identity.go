package manager

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/authz"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// cookieName is the session cookie.
const cookieName = "lazaret_session"

// localRoot is root on this machine, known by the kernel's word.
const localRoot = "user:root (local)"

type peerKey struct{}

// peer is what the kernel says about the other end of a unix socket.
type peer struct {
	uid uint32
	// foreign says that its process lives in other namespaces: it is root of a
	// container that was given the socket, not of this machine.
	foreign bool
}

// connContext remembers the peer's uid of unix connections.
func connContext(ctx context.Context, c net.Conn) context.Context {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ctx
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ctx
	}
	var cred *unix.Ucred
	if cerr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); cerr != nil || err != nil {
		return ctx
	}
	return context.WithValue(ctx, peerKey{}, peer{uid: cred.Uid, foreign: !kindred(cred.Pid)})
}

// kindred reports whether a process has our pid and user namespaces. Processes
// outside of our pid namespace are 0 to us.
func kindred(pid int32) bool {
	for _, ns := range []string{"pid", "user"} {
		own, err := os.Readlink("/proc/self/ns/" + ns)
		if err != nil {
			return false
		}
		theirs, err := os.Readlink("/proc/" + strconv.Itoa(int(pid)) + "/ns/" + ns)
		if err != nil || theirs != own {
			return false
		}
	}
	return true
}

// identify finds out who is calling. Credentials that are sent and wrong are
// an error; no credentials give an unknown principal.
func (m *Manager) identify(r *http.Request) (authz.Principal, error) {
	p := authz.Principal{From: r.RemoteAddr}
	unixPeer, overUnix := r.Context().Value(peerKey{}).(peer)
	if overUnix {
		p.From, p.Local = "unix", true
	} else if host, _, err := net.SplitHostPort(r.RemoteAddr); err == nil {
		p.From = host
		ip := net.ParseIP(host)
		p.Local = ip != nil && ip.IsLoopback()
	}
	if h := r.Header.Get("Authorization"); h != "" {
		secret, ok := strings.CutPrefix(h, "Bearer ")
		if !ok {
			return p, wrongCredentials("send the token as Authorization: Bearer TOKEN")
		}
		return m.bySecret(r.Context(), p, secret, false)
	}
	if c, err := r.Cookie(cookieName); err == nil {
		return m.bySecret(r.Context(), p, c.Value, true)
	}
	if overUnix && unixPeer.uid == 0 && !unixPeer.foreign {
		p.Name, p.Roles = localRoot, []authz.Role{authz.Local}
	}
	return p, nil
}

func wrongCredentials(text string) error {
	return problem(http.StatusUnauthorized, api.ProblemUnknown, "%s", text)
}

func (m *Manager) bySecret(ctx context.Context, p authz.Principal, secret string, cookie bool) (authz.Principal, error) {
	wrong := wrongCredentials("the token or session is not valid or has expired")
	if len(secret) > 256 {
		return p, wrong
	}
	k, err := m.store.TokenByHash(ctx, hash(secret), time.Now())
	if errors.Is(err, store.ErrNotFound) {
		return p, wrong
	}
	if err != nil {
		return p, err
	}
	if cookie != (k.Kind == store.TokenSession) {
		return p, wrong // a session works as cookie only, a token as header only
	}
	if k.Kind == store.TokenNode {
		p.Name, p.Node, p.Roles = "node:"+k.User, k.User, []authz.Role{authz.Node}
		return p, nil
	}
	u, err := m.store.User(ctx, k.User)
	if errors.Is(err, store.ErrNotFound) {
		return p, wrong
	}
	if err != nil {
		return p, err
	}
	p.Name, p.Tenants = "user:"+u.Name, u.Tenants
	for _, r := range u.Roles {
		p.Roles = append(p.Roles, authz.Role(r))
	}
	if cookie {
		p.Session = k.ID
	}
	return p, nil
}
