package manager

import (
	"context"
	"slices"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/authz"
	"github.com/lazaret/lazaret/internal/manager/store"
)

// Life of API tokens.
const (
	defaultTokenLife = 90 * 24 * time.Hour
	maxTokenLife     = 366 * 24 * time.Hour
)

type ByName struct {
	Name string `path:"name" maxLength:"253"`
}

func (m *Manager) listUsers(ctx context.Context, _ *empty) (*answer[api.Page[api.User]], error) {
	list, err := m.store.Users(ctx)
	page := api.Page[api.User]{Items: []api.User{}}
	for _, u := range list {
		page.Items = append(page.Items, u.User)
	}
	return &answer[api.Page[api.User]]{page}, err
}

// newUser checks a request and hashes the password.
func (m *Manager) newUser(ctx context.Context, r api.UserRequest) (u store.UserRecord, err error) {
	if err := checkName("user", r.Name); err != nil {
		return u, err
	}
	if err := checkRoles(r.Roles, r.Tenants); err != nil {
		return u, err
	}
	u.Name, u.Roles, u.Tenants = r.Name, r.Roles, r.Tenants
	u.Password, err = m.encodePassword(ctx, r.Name, r.Password)
	return u, err
}

func checkRoles(roles, tenants []string) error {
	if len(roles) == 0 {
		return invalid("a user needs at least one role of %v", authz.Grantable)
	}
	owner := false
	for i, r := range roles {
		if !slices.Contains(authz.Grantable, authz.Role(r)) {
			return invalid("%q is not a role: choose from %v", r, authz.Grantable)
		}
		if slices.Contains(roles[:i], r) {
			return invalid("role %s is named twice", r)
		}
		owner = owner || authz.Role(r) == authz.Owner
	}
	if owner != (len(tenants) > 0) {
		return invalid("the role owner and a list of tenants belong together")
	}
	for _, t := range tenants {
		if err := checkName("tenant", t); err != nil {
			return err
		}
	}
	return nil
}

type userIn struct{ Body api.UserRequest }

func (m *Manager) createUser(ctx context.Context, in *userIn) (*answer[api.User], error) {
	u, err := m.newUser(ctx, in.Body)
	if err != nil {
		return nil, err
	}
	err = m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target, u.Created = "user/"+u.Name, tx.Now
		e.Detail = detail(map[string]any{"roles": u.Roles, "tenants": u.Tenants})
		return tx.AddUser(ctx, u)
	})
	return &answer[api.User]{u.User}, err
}

type userUpdateIn struct {
	ByName
	Body api.UserRequest
}

// updateUser changes roles, tenants or password. Nobody changes their own
// roles: that would undo the separation of duties.
func (m *Manager) updateUser(ctx context.Context, in *userUpdateIn) (*answer[api.User], error) {
	r := in.Body
	if r.Name != "" && r.Name != in.Name {
		return nil, invalid("a user cannot be renamed")
	}
	self := callOf(ctx).principal.User() == in.Name
	if self && r.Roles != nil {
		return nil, refused("nobody can change their own roles: ask another user with the role platform")
	}
	if self && r.Password != "" {
		return nil, refused("change your own password with PUT /api/v1/me/password")
	}
	encoded := ""
	if r.Password != "" {
		var err error
		if encoded, err = m.encodePassword(ctx, in.Name, r.Password); err != nil {
			return nil, err
		}
	}
	var u store.UserRecord
	err := m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) (err error) {
		if u, err = tx.User(ctx, in.Name); err != nil {
			return err
		}
		before := u.User
		if r.Roles != nil {
			u.Roles, u.Tenants = r.Roles, r.Tenants
			if err := checkRoles(u.Roles, u.Tenants); err != nil {
				return err
			}
		}
		if encoded != "" {
			u.Password = encoded
		}
		e.Target = "user/" + u.Name
		e.Detail = detail(map[string]any{
			"before": map[string]any{"roles": before.Roles, "tenants": before.Tenants},
			"after":  map[string]any{"roles": u.Roles, "tenants": u.Tenants}, "password_changed": encoded != "",
		})
		return tx.SetUser(ctx, u)
	})
	return &answer[api.User]{u.User}, err
}

func (m *Manager) deleteUser(ctx context.Context, in *ByName) (*struct{}, error) {
	if callOf(ctx).principal.User() == in.Name {
		return nil, refused("nobody can delete themselves")
	}
	return nil, m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target = "user/" + in.Name
		return tx.DeleteUser(ctx, in.Name)
	})
}

func (m *Manager) tokens(ctx context.Context, owner string) (*answer[api.Page[api.Token]], error) {
	list, err := m.store.Tokens(ctx, store.TokenUser, owner)
	page := api.Page[api.Token]{Items: []api.Token{}}
	for _, k := range list {
		page.Items = append(page.Items, k.Token)
	}
	return &answer[api.Page[api.Token]]{page}, err
}

func (m *Manager) listTokens(ctx context.Context, _ *empty) (*answer[api.Page[api.Token]], error) {
	return m.tokens(ctx, callOf(ctx).principal.User())
}

func (m *Manager) listUserTokens(ctx context.Context, in *ByName) (*answer[api.Page[api.Token]], error) {
	if _, err := m.store.User(ctx, in.Name); err != nil {
		return nil, err
	}
	return m.tokens(ctx, in.Name)
}

type tokenIn struct{ Body api.TokenRequest }

func (m *Manager) createToken(ctx context.Context, in *tokenIn) (*answer[api.Token], error) {
	return m.addToken(ctx, callOf(ctx).principal.User(), in.Body)
}

type userTokenIn struct {
	ByName
	Body api.TokenRequest
}

func (m *Manager) createUserToken(ctx context.Context, in *userTokenIn) (*answer[api.Token], error) {
	return m.addToken(ctx, in.Name, in.Body)
}

// addToken makes a token; the answer is the only place its secret ever is.
func (m *Manager) addToken(ctx context.Context, owner string, r api.TokenRequest) (*answer[api.Token], error) {
	if err := checkName("token", r.Name); err != nil {
		return nil, err
	}
	life := defaultTokenLife
	if r.For != "" {
		var err error
		if life, err = duration(r.For, maxTokenLife); err != nil {
			return nil, err
		}
	}
	k := store.TokenRecord{Kind: store.TokenUser, Token: api.Token{ID: store.NewID(), Name: r.Name, User: owner}}
	secret := newSecret(userPrefix)
	err := m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		if _, err := tx.User(ctx, owner); err != nil {
			return err
		}
		k.Created, k.Expires = tx.Now, tx.Now.Add(life)
		e.Target = "token/" + k.ID
		e.Detail = detail(map[string]any{"user": owner, "name": k.Name, "expires": k.Expires})
		return tx.AddToken(ctx, k, hash(secret))
	})
	k.Secret = secret
	return &answer[api.Token]{k.Token}, err
}

// duration reads a positive duration of at most longest.
func duration(s string, longest time.Duration) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 || d > longest {
		return 0, invalid("%q is not a duration between 0 and %s: write for example 720h", s, longest)
	}
	return d, nil
}

func (m *Manager) deleteToken(ctx context.Context, in *ByID) (*struct{}, error) {
	return nil, m.dropToken(ctx, callOf(ctx).principal.User(), in.ID)
}

type userTokenRef struct {
	ByName
	ByID
}

func (m *Manager) deleteUserToken(ctx context.Context, in *userTokenRef) (*struct{}, error) {
	return nil, m.dropToken(ctx, in.Name, in.ID)
}

func (m *Manager) dropToken(ctx context.Context, owner, id string) error {
	return m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target = "token/" + id
		return tx.DeleteToken(ctx, store.TokenUser, owner, id)
	})
}
