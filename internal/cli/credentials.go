package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"

	"github.com/lazaret/lazaret/api"
)

// credentials is what login stores. The token is sent to no other server than
// the one it is from.
type credentials struct {
	Server string `json:"server"` // URL, or path of the socket
	ID     string `json:"id"`     // of the token, to end it
	Token  string `json:"token"`
}

// maxCredentials bounds the file.
const maxCredentials = 64 << 10

// serverOf names a server in stored credentials.
func serverOf(cc api.ClientConfig) string {
	if cc.Socket != "" {
		return cc.Socket
	}
	return cc.URL
}

// token is the API token for a server: the environment's, or the one login
// stored for it; empty if there is none.
func (a *app) token(cc api.ClientConfig) (string, error) {
	if t := a.Getenv("LAZARET_TOKEN"); t != "" {
		return t, nil
	}
	c, err := a.loadCredentials()
	if err != nil || c.Server != serverOf(cc) {
		return "", err
	}
	return c.Token, nil
}

// credentialsPath is the file, mode 0600, that login writes; empty if the user
// has no home.
func (a *app) credentialsPath() string {
	dir := a.Getenv("XDG_CONFIG_HOME")
	if dir == "" && a.Getenv("HOME") != "" {
		dir = filepath.Join(a.Getenv("HOME"), ".config")
	}
	if !filepath.IsAbs(dir) {
		return ""
	}
	return filepath.Join(dir, "lazaret", "credentials")
}

// loadCredentials reads what login stored, nothing if it did not.
func (a *app) loadCredentials() (c credentials, err error) {
	path := a.credentialsPath()
	if path == "" {
		return c, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("reading credentials: %w", err)
	}
	defer f.Close()
	if err := json.NewDecoder(io.LimitReader(f, maxCredentials)).Decode(&c); err != nil {
		return credentials{}, fmt.Errorf("reading credentials %s: %w; log in again", path, err)
	}
	return c, nil
}

func (a *app) storeCredentials(c credentials) error {
	path := a.credentialsPath()
	if path == "" {
		return errors.New("storing credentials: HOME is not set")
	}
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("storing credentials: %w", err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return fmt.Errorf("storing credentials: %w", err)
	}
	if err := renameio.WriteFile(path, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("storing credentials: %w", err)
	}
	return nil
}

// dropCredentials forgets what login stored.
func (a *app) dropCredentials() error {
	path := a.credentialsPath()
	if path == "" {
		return nil
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("removing credentials: %w", err)
	}
	return nil
}
