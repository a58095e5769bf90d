package manager

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/limit"
)

const goodPassword = "a long enough one"

func TestSetupLoginLogout(t *testing.T) {
	t.Parallel()
	m := newManager(t, t.TempDir())
	link, err := m.FirstSetup(t.Context())
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(link.Token, "lzs_"))
	require.Contains(t, link.URL, "/setup#"+link.Token)
	stored, err := m.store.Setting(t.Context(), setupSetting)
	require.NoError(t, err)
	require.NotContains(t, stored, link.Token, "only a hash is stored")
	newer, err := m.FirstSetup(t.Context())
	require.NoError(t, err)
	require.NoError(t, m.Close())

	b := bench(t)
	ctx := t.Context()
	none, err := b.FirstSetup(ctx)
	require.NoError(t, err)
	require.Empty(t, none.Token, "there are users")
	wantProblem(t, b.as("paula").Post(ctx, "/api/v1/setup-link", nil, nil), 403, api.ProblemDenied)
	link, err = b.newSetup(ctx, func(*storeTx) error { return nil })
	require.NoError(t, err)
	stranger := b.as("")
	setup := func(token, name, password string) error {
		return stranger.Post(ctx, "/api/v1/setup", api.SetupRequest{Token: token, Name: name, Password: password}, nil)
	}
	wantProblem(t, setup(newer.Token, "first", goodPassword), 403, api.ProblemDenied)
	wantProblem(t, setup(link.Token, "first", "short"), 422, api.ProblemInvalid)
	wantProblem(t, setup(link.Token, "../first", goodPassword), 422, api.ProblemInvalid)
	require.NoError(t, setup(link.Token, "first", goodPassword))
	b.logins = limit.New(100, time.Millisecond)
	wantProblem(t, setup(link.Token, "second", goodPassword), 403, api.ProblemDenied)

	login := func(name, password string) *http.Response {
		body, err := json.Marshal(api.LoginRequest{Name: name, Password: password})
		require.NoError(t, err)
		return b.call("POST", "/api/v1/sessions", "", bytes.NewReader(body), "Content-Type", "application/json")
	}
	require.Equal(t, 401, login("first", "a wrong password").StatusCode)
	require.Equal(t, 401, login("nobody", goodPassword).StatusCode)
	resp := login("first", goodPassword)
	require.Equal(t, 201, resp.StatusCode)
	require.Len(t, resp.Cookies(), 1)
	c := resp.Cookies()[0]
	require.True(t, c.HttpOnly)
	require.Equal(t, http.SameSiteStrictMode, c.SameSite)
	cookie := cookieName + "=" + c.Value
	require.Equal(t, 200, b.call("GET", "/api/v1/me", "", nil, "Cookie", cookie).StatusCode)
	require.Equal(t, 401, b.call("GET", "/api/v1/me", c.Value, nil).StatusCode, "a session is no token")
	require.Equal(t, 403, b.call("DELETE", "/api/v1/sessions/current", "", nil, "Cookie", cookie, "Sec-Fetch-Site", "cross-site").StatusCode)
	require.Equal(t, 204, b.call("DELETE", "/api/v1/sessions/current", "", nil, "Cookie", cookie).StatusCode)
	require.Equal(t, 401, b.call("GET", "/api/v1/me", "", nil, "Cookie", cookie).StatusCode)
	require.Equal(t, 422, b.call("DELETE", "/api/v1/sessions/current", b.secrets["anna"], nil).StatusCode)
}

func TestLoginIsLimited(t *testing.T) {
	t.Parallel()
	b := bench(t)
	b.logins = limit.New(2, time.Hour)
	var last *api.Problem
	for range 3 {
		err := b.as("").Post(t.Context(), "/api/v1/sessions", api.LoginRequest{Name: "anna", Password: "guess guess guess"}, nil)
		require.ErrorAs(t, err, &last)
	}
	require.Equal(t, 429, last.Status)
	require.Equal(t, api.ProblemLimited, last.Type)
}

func TestUsers(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	paula := b.as("paula")
	create := func(r api.UserRequest) error { return paula.Post(ctx, "/api/v1/users", r, nil) }
	for name, r := range map[string]api.UserRequest{
		"no roles":              {Name: "x", Password: goodPassword},
		"unknown role":          {Name: "x", Password: goodPassword, Roles: []string{"god"}},
		"machine role":          {Name: "x", Password: goodPassword, Roles: []string{"node"}},
		"local role":            {Name: "x", Password: goodPassword, Roles: []string{"local"}},
		"role twice":            {Name: "x", Password: goodPassword, Roles: []string{"auditor", "auditor"}},
		"owner without tenant":  {Name: "x", Password: goodPassword, Roles: []string{"owner"}},
		"tenant without owner":  {Name: "x", Password: goodPassword, Roles: []string{"auditor"}, Tenants: []string{"t"}},
		"short password":        {Name: "x", Password: "short", Roles: []string{"auditor"}},
		"name with a slash":     {Name: "a/b", Password: goodPassword, Roles: []string{"auditor"}},
		"name with control":     {Name: "a\nb", Password: goodPassword, Roles: []string{"auditor"}},
		"tenant with a newline": {Name: "x", Password: goodPassword, Roles: []string{"owner"}, Tenants: []string{"a\n"}},
	} {
		err := create(r)
		require.Error(t, err, name)
		wantProblem(t, err, 422, api.ProblemInvalid)
	}
	require.NoError(t, create(api.UserRequest{Name: "nina", Password: goodPassword, Roles: []string{"auditor"}}))
	wantProblem(t, create(api.UserRequest{Name: "nina", Password: goodPassword, Roles: []string{"auditor"}}), 409, api.ProblemConflict)
	var u api.User
	require.NoError(t, paula.Put(ctx, "/api/v1/users/nina", api.UserRequest{Name: "nina", Roles: []string{"owner"}, Tenants: []string{"blue"}}, &u))
	require.Equal(t, []string{"owner"}, u.Roles)
	wantProblem(t, paula.Put(ctx, "/api/v1/users/nobody", api.UserRequest{Name: "nobody", Roles: []string{"auditor"}}, nil), 404, api.ProblemNotFound)
	wantProblem(t, paula.Put(ctx, "/api/v1/users/nina", api.UserRequest{Name: "other"}, nil), 422, api.ProblemInvalid)
	wantProblem(t, paula.Put(ctx, "/api/v1/users/paula", api.UserRequest{Name: "paula", Roles: []string{"platform", "security"}}, nil), 409, api.ProblemRefused)
	wantProblem(t, paula.Put(ctx, "/api/v1/users/paula", api.UserRequest{Name: "paula", Password: goodPassword}, nil), 409, api.ProblemRefused)
	wantProblem(t, paula.Delete(ctx, "/api/v1/users/paula"), 409, api.ProblemRefused)

	var page api.Page[api.User]
	require.NoError(t, b.as("anna").Get(ctx, "/api/v1/users", &page))
	require.Len(t, page.Items, 5)
	text, err := json.Marshal(page)
	require.NoError(t, err)
	require.NotContains(t, string(text), "argon2")

	// The own password.
	require.NoError(t, paula.Put(ctx, "/api/v1/users/anna", api.UserRequest{Name: "anna", Password: goodPassword}, nil))
	anna := b.as("anna")
	wantProblem(t, anna.Put(ctx, "/api/v1/me/password", api.PasswordRequest{Old: "a wrong password", New: goodPassword + "!"}, nil), 422, api.ProblemInvalid)
	wantProblem(t, anna.Put(ctx, "/api/v1/me/password", api.PasswordRequest{Old: goodPassword, New: "short"}, nil), 422, api.ProblemInvalid)
	require.NoError(t, anna.Put(ctx, "/api/v1/me/password", api.PasswordRequest{Old: goodPassword, New: goodPassword + "!"}, nil))

	require.NoError(t, paula.Delete(ctx, "/api/v1/users/anna"))
	wantProblem(t, anna.Get(ctx, "/api/v1/me", nil), 401, api.ProblemUnknown)
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := bench(t)
	ctx := t.Context()
	var k api.Token
	require.NoError(t, b.as("sven").Post(ctx, "/api/v1/tokens", api.TokenRequest{Name: "ci", For: "24h"}, &k))
	require.True(t, strings.HasPrefix(k.Secret, "lzt_"))
	require.WithinDuration(t, time.Now().Add(24*time.Hour), k.Expires, time.Minute)
	b.secrets["ci"] = k.Secret
	var me api.Me
	require.NoError(t, b.as("ci").Get(ctx, "/api/v1/me", &me))
	require.Equal(t, "user:sven", me.Actor)
	require.Equal(t, []string{"security"}, me.Roles)
	for _, bad := range []api.TokenRequest{{Name: "x", For: "99999h"}, {Name: "x", For: "-1h"}, {Name: "x", For: "soon"}, {Name: ""}} {
		wantProblem(t, b.as("sven").Post(ctx, "/api/v1/tokens", bad, nil), 422, api.ProblemInvalid)
	}
	var page api.Page[api.Token]
	require.NoError(t, b.as("sven").Get(ctx, "/api/v1/tokens", &page))
	require.Len(t, page.Items, 2)
	for _, x := range page.Items {
		require.Empty(t, x.Secret)
	}
	wantProblem(t, b.as("paula").Delete(ctx, "/api/v1/tokens/"+k.ID), 404, api.ProblemNotFound)
	require.NoError(t, b.as("paula").Delete(ctx, "/api/v1/users/sven/tokens/"+k.ID))
	wantProblem(t, b.as("ci").Get(ctx, "/api/v1/me", nil), 401, api.ProblemUnknown)
	wantProblem(t, b.as("paula").Get(ctx, "/api/v1/users/nobody/tokens", nil), 404, api.ProblemNotFound)
	wantProblem(t, b.as("paula").Post(ctx, "/api/v1/users/sven/tokens", api.TokenRequest{Name: "x"}, nil), 403, api.ProblemDenied)
}
