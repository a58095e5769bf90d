package response

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/lazaret/lazaret/internal/response/seal"
)

// loadKey reads the vault key, or makes it if create is set. The key appears
// under its name only when it is complete and on disk.
func loadKey(path string, create bool) (*[seal.KeySize]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) && create {
		return makeKey(path)
	}
	if err != nil {
		return nil, fmt.Errorf("reading vault key: %w", err)
	}
	if len(b) != seal.KeySize {
		return nil, fmt.Errorf("reading vault key %s: %d bytes, want %d", path, len(b), seal.KeySize)
	}
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("reading vault key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("reading vault key %s: others may read it (mode %04o), want 0600", path, info.Mode().Perm())
	}
	return (*[seal.KeySize]byte)(b), nil
}

func makeKey(path string) (*[seal.KeySize]byte, error) {
	var key [seal.KeySize]byte
	rand.Read(key[:])
	f, err := os.CreateTemp(filepath.Dir(path), ".key-*")
	if err != nil {
		return nil, fmt.Errorf("making vault key: %w", err)
	}
	defer os.Remove(f.Name())
	_, err = f.Write(key[:])
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = os.Link(f.Name(), path) // never replaces a key
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return nil, fmt.Errorf("making vault key: %w", err)
	}
	return &key, nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
