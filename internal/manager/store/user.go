package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"time"

	"github.com/lazaret/lazaret/api"
)

// UserRecord is a user with the encoded password hash.
type UserRecord struct {
	api.User
	Password string
}

// AddUser creates a user; ErrConflict if the name is taken.
func (t *Tx) AddUser(ctx context.Context, u UserRecord) error {
	n, err := t.exec(ctx, "adding user", `INSERT INTO user (name, roles, tenants, password, created) VALUES (?, ?, ?, ?, ?)
		ON CONFLICT (name) DO NOTHING`, u.Name, jsonList(u.Roles), jsonList(u.Tenants), u.Password, t.Now.UnixNano())
	if err == nil && n == 0 {
		err = fmt.Errorf("user %s: %w", u.Name, ErrConflict)
	}
	return err
}

// SetUser changes roles, tenants and password of a user. The user's sessions
// end when the password or the roles changed.
func (t *Tx) SetUser(ctx context.Context, u UserRecord) error {
	old, err := t.User(ctx, u.Name)
	if err != nil {
		return err
	}
	err = t.change(ctx, "user "+u.Name, "UPDATE user SET roles = ?, tenants = ?, password = ? WHERE name = ?",
		jsonList(u.Roles), jsonList(u.Tenants), u.Password, u.Name)
	if err == nil && old.Password != u.Password {
		_, err = t.exec(ctx, "ending sessions", "DELETE FROM token WHERE kind = 'session' AND owner = ?", u.Name)
	}
	return err
}

// DeleteUser removes a user with tokens and sessions.
func (t *Tx) DeleteUser(ctx context.Context, name string) error {
	if err := t.change(ctx, "user "+name, "DELETE FROM user WHERE name = ?", name); err != nil {
		return err
	}
	_, err := t.exec(ctx, "deleting tokens", "DELETE FROM token WHERE kind IN ('user', 'session') AND owner = ?", name)
	return err
}

func scanUser(r *sql.Rows) (u UserRecord, err error) {
	var roles, tenants []byte
	var at int64
	if err = r.Scan(&u.Name, &roles, &tenants, &u.Password, &at); err != nil {
		return u, err
	}
	u.Created = time.Unix(0, at).UTC()
	if err = json.Unmarshal(roles, &u.Roles); err != nil {
		return u, err
	}
	return u, json.Unmarshal(tenants, &u.Tenants)
}

// User returns one user.
func (r Reader) User(ctx context.Context, name string) (UserRecord, error) {
	list, err := rows(ctx, r.q, "reading user", scanUser, "SELECT name, roles, tenants, password, created FROM user WHERE name = ?", name)
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("user %s: %w", name, ErrNotFound)
	}
	if err != nil {
		return UserRecord{}, err
	}
	return list[0], nil
}

// Users returns all users by name.
func (r Reader) Users(ctx context.Context) ([]UserRecord, error) {
	return rows(ctx, r.q, "listing users", scanUser, "SELECT name, roles, tenants, password, created FROM user ORDER BY name")
}

// Setting returns a named text, empty if it was never set.
func (r Reader) Setting(ctx context.Context, name string) (string, error) {
	list, err := rows(ctx, r.q, "reading setting", func(r *sql.Rows) (s string, err error) { return s, r.Scan(&s) },
		"SELECT value FROM setting WHERE name = ?", name)
	if err != nil || len(list) == 0 {
		return "", err
	}
	return list[0], nil
}

// Set stores a named text; an empty one removes it.
func (t *Tx) Set(ctx context.Context, name, value string) error {
	query := "INSERT INTO setting (name, value) VALUES (?1, ?2) ON CONFLICT (name) DO UPDATE SET value = excluded.value"
	if value == "" {
		query = "DELETE FROM setting WHERE name = ?1"
	}
	_, err := t.exec(ctx, "storing setting", query, name, value)
	return err
}
