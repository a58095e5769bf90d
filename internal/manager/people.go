package manager

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/authz"
	"github.com/lazaret/lazaret/internal/manager/password"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// sessionLife is how long a login lasts.
const sessionLife = 12 * time.Hour

type setupIn struct{ Body api.SetupRequest }

// setup creates the first user, who gets every role a person can have; the
// link is used up in the same transaction.
func (m *Manager) setup(ctx context.Context, in *setupIn) (*answer[api.User], error) {
	if err := m.attempt("setup from " + callOf(ctx).principal.From); err != nil {
		return nil, err
	}
	if want, err := m.store.Setting(ctx, setupSetting); err != nil {
		return nil, err
	} else if want == "" || want != hexHash(in.Body.Token) {
		return nil, problem(http.StatusForbidden, api.ProblemDenied, "%v", errSetupUsed)
	}
	u, err := m.newUser(ctx, api.UserRequest{
		Name: in.Body.Name, Password: in.Body.Password,
		Roles: []string{string(authz.Platform), string(authz.Security), string(authz.Auditor)},
	})
	if err != nil {
		return nil, err
	}
	err = m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		want, err := tx.Setting(ctx, setupSetting)
		if err != nil {
			return err
		}
		if want != hexHash(in.Body.Token) { // somebody was faster
			return problem(http.StatusForbidden, api.ProblemDenied, "%v", errSetupUsed)
		}
		if err := tx.Set(ctx, setupSetting, ""); err != nil {
			return err
		}
		e.Target, u.Created = "user/"+u.Name, tx.Now
		return tx.AddUser(ctx, u)
	})
	return &answer[api.User]{u.User}, err
}

func (m *Manager) setupLink(ctx context.Context, _ *empty) (*answer[api.SetupLink], error) {
	c := callOf(ctx)
	link, err := m.newSetup(ctx, func(tx *store.Tx) error { return tx.Audit(ctx, c.entry(c.target, "", nil)) })
	c.audited = err == nil
	return &answer[api.SetupLink]{link}, err
}

// attempt limits guesses, by every key on its own.
func (m *Manager) attempt(keys ...string) error {
	for _, k := range keys {
		if ok, wait := m.logins.Allow(k); !ok {
			return tooMany(wait, "too many attempts")
		}
	}
	return nil
}

type loginIn struct{ Body api.LoginRequest }

type loginOut struct {
	SetCookie http.Cookie `header:"Set-Cookie"`
	Body      api.Me
}

// login checks the password and starts a session. Name and password being
// wrong look alike, also in time.
func (m *Manager) login(ctx context.Context, in *loginIn) (*loginOut, error) {
	c := callOf(ctx)
	if len(in.Body.Name) > 253 { // nobody is called so, and limiter keys stay small
		return nil, problem(http.StatusUnauthorized, api.ProblemUnknown, "name or password is wrong")
	}
	c.target = "user/" + in.Body.Name
	// The address first: names that one stranger makes up must not use up the
	// limiter's memory, which would lock everybody out.
	if err := m.attempt("from "+c.principal.From, "name "+in.Body.Name); err != nil {
		return nil, err
	}
	u, err := m.store.User(ctx, in.Body.Name)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	switch err := m.hasher.Verify(ctx, u.Password, in.Body.Password); {
	case errors.Is(err, password.ErrWrong):
		return nil, problem(http.StatusUnauthorized, api.ProblemUnknown, "name or password is wrong")
	case err != nil:
		return nil, err
	}
	m.logins.Reset("name " + in.Body.Name)
	secret := newSecret("")
	expires := time.Now().Add(sessionLife)
	c.principal.Name = "user:" + u.Name
	err = m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target = "user/" + u.Name
		return tx.AddToken(ctx, store.TokenRecord{
			Kind:  store.TokenSession,
			Token: api.Token{ID: store.NewID(), Name: "session", User: u.Name, Expires: expires},
		}, hash(secret))
	})
	if err != nil {
		return nil, err
	}
	return &loginOut{
		SetCookie: m.cookie(secret, int(sessionLife.Seconds())),
		Body:      api.Me{Actor: "user:" + u.Name, Roles: u.Roles, Tenants: u.Tenants},
	}, nil
}

func (m *Manager) cookie(value string, maxAge int) http.Cookie {
	return http.Cookie{
		Name: cookieName, Value: value, Path: "/", MaxAge: maxAge,
		HttpOnly: true, Secure: m.TLSCert != "", SameSite: http.SameSiteStrictMode,
	}
}

type logoutOut struct {
	Status    int
	SetCookie http.Cookie `header:"Set-Cookie"`
}

func (m *Manager) logout(ctx context.Context, _ *empty) (*logoutOut, error) {
	c := callOf(ctx)
	if c.principal.Session == "" {
		return nil, invalid("there is no session: the call used a token")
	}
	err := m.change(ctx, func(tx *store.Tx, _ *api.AuditEntry) error {
		return tx.DeleteToken(ctx, store.TokenSession, c.principal.User(), c.principal.Session)
	})
	return &logoutOut{Status: http.StatusNoContent, SetCookie: m.cookie("", -1)}, err
}

func (m *Manager) me(ctx context.Context, _ *empty) (*answer[api.Me], error) {
	p := callOf(ctx).principal
	me := api.Me{Actor: p.Name, Roles: []string{}, Tenants: p.Tenants}
	for _, r := range p.Roles {
		me.Roles = append(me.Roles, string(r))
	}
	return &answer[api.Me]{me}, nil
}

type passwordIn struct{ Body api.PasswordRequest }

// changePassword changes the own password; every session ends.
func (m *Manager) changePassword(ctx context.Context, in *passwordIn) (*struct{}, error) {
	name := callOf(ctx).principal.User()
	if err := m.attempt("name " + name); err != nil {
		return nil, err
	}
	u, err := m.store.User(ctx, name)
	if err != nil {
		return nil, err
	}
	if err := m.hasher.Verify(ctx, u.Password, in.Body.Old); errors.Is(err, password.ErrWrong) {
		return nil, invalid("the old password is wrong")
	} else if err != nil {
		return nil, err
	}
	encoded, err := m.encodePassword(ctx, name, in.Body.New)
	if err != nil {
		return nil, err
	}
	return nil, m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target = "user/" + name
		u, err := tx.User(ctx, name) // roles may have changed meanwhile
		if err != nil {
			return err
		}
		u.Password = encoded
		return tx.SetUser(ctx, u)
	})
}

func (m *Manager) encodePassword(ctx context.Context, name, clear string) (string, error) {
	if err := password.Check(name, clear); err != nil {
		return "", invalid("%v", err)
	}
	return m.hasher.Hash(ctx, clear)
}
