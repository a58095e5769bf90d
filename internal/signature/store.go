package signature

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

const compiledManifest = "manifest.json"

// CompiledManifest describes a directory of compiled signatures.
type CompiledManifest struct {
	Epoch threat.Epoch `json:"epoch"`
	// Files of the directory with their SHA-256.
	Files  map[string]threat.Hash `json:"files"`
	Rules  int                    `json:"rules"`
	Hashes int64                  `json:"hashes"`
	// Source is the digest of the source bundle's manifest.
	Source threat.Hash `json:"source"`
}

// Compiled is a directory of compiled signatures whose content was verified.
type Compiled struct {
	Dir string
	CompiledManifest
}

// compiledFile matches the files a compiled bundle may have; nothing else is
// ever handed to a worker.
var compiledFile = regexp.MustCompile(`^([a-z0-9]+\.(yarc|set)|rules\.json)$`)

// OpenCompiled verifies a directory of compiled signatures against its
// manifest. The error wraps ErrDamaged if something does not match and
// fs.ErrNotExist if there is none.
func OpenCompiled(dir string) (*Compiled, error) {
	data, err := os.ReadFile(filepath.Join(dir, compiledManifest))
	if err != nil {
		return nil, fmt.Errorf("opening compiled signatures: %w", err)
	}
	c := &Compiled{Dir: dir}
	if err := json.Unmarshal(data, &c.CompiledManifest); err != nil {
		return nil, fmt.Errorf("opening compiled signatures %s: %w: %w", dir, ErrDamaged, err)
	}
	for name, want := range c.Files {
		if !compiledFile.MatchString(name) {
			return nil, fmt.Errorf("opening compiled signatures %s: %w: unexpected file %q", dir, ErrDamaged, name)
		}
		got, err := seal(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("opening compiled signatures: %w: %w", ErrDamaged, err)
		}
		if got != want {
			return nil, fmt.Errorf("opening compiled signatures %s: %w", filepath.Join(dir, name), ErrDamaged)
		}
	}
	return c, nil
}

// Store keeps a node's compiled bundles: the active one, the one before it for
// instant roll-back, and those that were compiled since. It is safe for
// concurrent use and for being killed at any moment.
type Store struct {
	dir    string
	logger *slog.Logger
	mu     sync.Mutex
}

// OpenStore opens the store in dir, making it with mode 0700, and removes what
// a crash left half made.
func OpenStore(dir string, logger *slog.Logger) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("opening compiled signatures: %w", err)
	}
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil {
		return nil, fmt.Errorf("opening compiled signatures: %w", err)
	}
	for _, path := range left {
		// A recent one may be another process's that compiles right now.
		if st, err := os.Lstat(path); err != nil || time.Since(st.ModTime()) < time.Hour {
			continue
		}
		if err := os.RemoveAll(path); err != nil {
			return nil, fmt.Errorf("opening compiled signatures: %w", err)
		}
	}
	return &Store{dir: dir, logger: logger}, nil
}

func (s *Store) path(epoch threat.Epoch) string {
	return filepath.Join(s.dir, strconv.FormatUint(uint64(epoch), 10))
}

// Compile turns a verified source bundle into a compiled one, or returns the
// one that is there already. Rules that do not compile are returned; the rest
// of the bundle is used without them. If a source is damaged (ErrDamaged) it is
// removed, and the client's next update fetches it again.
func (s *Store) Compile(ctx context.Context, b *Bundle, compiler Compiler) (*Compiled, []api.ImportError, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	dir := s.path(b.Manifest.Epoch)
	c, err := OpenCompiled(dir)
	if err == nil && c.Source == b.Digest {
		return c, nil, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.logger.Warn("compiling damaged signatures again", slog.Any("epoch", b.Manifest.Epoch), slog.Any("error", err))
	}
	tmp, err := os.MkdirTemp(s.dir, ".new-*")
	if err != nil {
		return nil, nil, fmt.Errorf("compiling bundle %d: %w", b.Manifest.Epoch, err)
	}
	m, errs, err := compileInto(ctx, b, compiler, tmp)
	if err == nil {
		// A directory can only be replaced when it is empty; between the two
		// steps this epoch is missing, which is compiled again.
		err = errors.Join(os.RemoveAll(dir), os.Rename(tmp, dir), syncDir(s.dir))
	}
	if errors.Is(err, ErrDamaged) {
		err = errors.Join(err, b.blobs.dropDamaged(b.Manifest.Sources))
	}
	if err != nil {
		return nil, nil, errors.Join(err, os.RemoveAll(tmp))
	}
	return &Compiled{Dir: dir, CompiledManifest: *m}, errs, nil
}

// Active returns the bundle that was activated last, verified; the error wraps
// fs.ErrNotExist if none was.
func (s *Store) Active() (*Compiled, error) { return s.follow("active") }

// Previous returns the bundle that was active before.
func (s *Store) Previous() (*Compiled, error) { return s.follow("previous") }

func (s *Store) follow(link string) (*Compiled, error) {
	target, err := s.target(link)
	if err != nil {
		return nil, err
	}
	return OpenCompiled(filepath.Join(s.dir, target))
}

// target reads a link; only names of epochs are followed.
func (s *Store) target(link string) (string, error) {
	target, err := os.Readlink(filepath.Join(s.dir, link))
	if err != nil {
		return "", fmt.Errorf("finding the %s signatures: %w", link, err)
	}
	if _, err := strconv.ParseUint(target, 10, 64); err != nil {
		return "", fmt.Errorf("finding the %s signatures: %w: it leads to %q", link, ErrDamaged, target)
	}
	return target, nil
}

// Activate remembers that the workers use this bundle now, and removes bundles
// that are neither it nor its predecessor.
func (s *Store) Activate(c *Compiled) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := filepath.Base(c.Dir)
	old, err := s.target("active")
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, ErrDamaged) {
		return err
	}
	if err == nil && old != name {
		if err := s.point("previous", old); err != nil {
			return err
		}
	}
	if err := s.point("active", name); err != nil {
		return err
	}
	return s.collect()
}

// point makes a symbolic link atomically.
func (s *Store) point(link, target string) error {
	tmp := filepath.Join(s.dir, ".new-"+link)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("activating signatures: %w", err)
	}
	if err := os.Symlink(target, tmp); err != nil {
		return fmt.Errorf("activating signatures: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(s.dir, link)); err != nil {
		return fmt.Errorf("activating signatures: %w", err)
	}
	return syncDir(s.dir)
}

func (s *Store) collect() error {
	keep := map[string]bool{}
	for _, link := range []string{"active", "previous"} {
		if target, err := s.target(link); err == nil {
			keep[target] = true
		}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("collecting compiled signatures: %w", err)
	}
	for _, e := range entries {
		if !e.IsDir() || keep[e.Name()] || strings.HasPrefix(e.Name(), ".new-") {
			continue
		}
		if err := os.RemoveAll(filepath.Join(s.dir, e.Name())); err != nil {
			return fmt.Errorf("collecting compiled signatures: %w", err)
		}
	}
	return nil
}
