package signature

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// stepFunc is called before each change of the disk that a crash could
// separate from the next; tests make it fail to prove that every prefix of the
// changes leaves a usable state.
type stepFunc func(name string) error

func noStep(string) error { return nil }

// writeFile replaces a file so that after a crash at any moment either the old
// or the new content is there in full.
func writeFile(path string, data []byte, step stepFunc) error {
	if err := step("write " + filepath.Base(path)); err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // mode 0600
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, err)
	}
	_, err = f.Write(data)
	err = errors.Join(err, f.Sync(), f.Close())
	if err == nil {
		err = step("rename " + filepath.Base(path))
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("writing %s: %w", path, errors.Join(err, os.Remove(f.Name())))
	}
	return syncDir(filepath.Dir(path))
}

// syncDir makes renames and removals in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("syncing %s: %w", dir, err)
	}
	return nil
}
