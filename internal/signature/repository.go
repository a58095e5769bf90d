package signature

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/threat"
)

// ErrNotFound is wrapped by errors about bundles that are not there.
var ErrNotFound = errors.New("no such bundle")

// RepositoryConfig says where a repository is.
type RepositoryConfig struct {
	// Dir holds keys, metadata, manifests and blobs; it is made with mode 0700.
	Dir string
	// Keep is how many bundles can be rolled back to; default 10.
	Keep int
	// Now is the clock; default time.Now.
	Now func() time.Time
	// Logger; default: discard.
	Logger *slog.Logger
	// Conditions is told when renewing signatures does not work; may be nil.
	Conditions *condition.Set
}

// Repository is the manager's signed collection of bundles: a TUF repository on
// disk with consistent snapshots. It is safe for concurrent use and for being
// killed at any moment: clients then see the previous bundle or the new one.
type Repository struct {
	dir        string
	keep       int
	now        func() time.Time
	logger     *slog.Logger
	conditions *condition.Set
	lock       *os.File
	blobs      blobs
	step       stepFunc

	mu    sync.Mutex
	keys  roles
	state *state
}

// OpenRepository opens a repository, making it with fresh keys if it is not
// there. Only one process can have it open; Close ends that.
func OpenRepository(c RepositoryConfig) (*Repository, error) { return openRepository(c, noStep) }

func openRepository(c RepositoryConfig, step stepFunc) (*Repository, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Keep <= 0 {
		c.Keep = 10
	}
	r := &Repository{
		dir: c.Dir, keep: c.Keep, now: c.Now, logger: c.Logger, conditions: c.Conditions,
		blobs: blobs{filepath.Join(c.Dir, "blobs")}, step: step,
	}
	if err := r.open(); err != nil {
		return nil, errors.Join(fmt.Errorf("opening signature repository %s: %w", c.Dir, err), r.Close())
	}
	return r, nil
}

func (r *Repository) open() error {
	var dirs []string
	for _, d := range []string{"keys", "metadata", "targets", "bundles", "blobs"} {
		dirs = append(dirs, filepath.Join(r.dir, d))
		if err := os.MkdirAll(dirs[len(dirs)-1], 0o700); err != nil {
			return err
		}
	}
	var err error
	if r.lock, err = os.OpenFile(filepath.Join(r.dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err != nil {
		return err
	}
	if err := unix.Flock(int(r.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("locking, another process may use it: %w", err)
	}
	if err := clean(dirs...); err != nil {
		return err
	}
	_, err = os.Stat(r.metadataPath(1, metadata.ROOT))
	fresh := errors.Is(err, fs.ErrNotExist)
	if r.keys, err = loadRoles(filepath.Join(r.dir, "keys"), fresh, r.step); err != nil {
		return err
	}
	if fresh {
		root, err := newRoot(r.keys, r.now())
		if err != nil {
			return err
		}
		data, err := sign(r.keys, metadata.ROOT, root)
		if err != nil {
			return err
		}
		if err := writeFile(r.metadataPath(1, metadata.ROOT), data, r.step); err != nil {
			return err
		}
	}
	if r.state, err = r.load(); err != nil {
		return err
	}
	if err := r.keys.check(r.state.root); err != nil {
		return err
	}
	return errors.Join(r.renew(), r.collect())
}

// Close lets another process open the repository.
func (r *Repository) Close() error {
	if r.lock == nil {
		return nil
	}
	return r.lock.Close()
}

// Run renews signatures before they expire, until ctx ends.
func (r *Repository) Run(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := r.Renew(); err != nil {
			r.logger.Error("renewing signatures of the bundle", slog.Any("error", err))
			r.raise(err)
		} else if r.conditions != nil {
			r.conditions.Clear("signatures_not_renewed")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (r *Repository) raise(err error) {
	if r.conditions == nil {
		return
	}
	r.conditions.Raise(threat.Condition{
		Code: "signatures_not_renewed", Severity: threat.High,
		Text:   fmt.Sprintf("The signatures of the active bundle could not be renewed: %v.", err),
		Advice: "Free space and check the permissions of the manager's signature directory; nodes refuse the bundle one week after the last renewal.",
	})
}

// Renew signs again what expires soon.
func (r *Repository) Renew() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.renew()
}

// Root returns the first root metadata, which a node pins when it is enrolled.
func (r *Repository) Root() ([]byte, error) {
	data, err := os.ReadFile(r.metadataPath(1, metadata.ROOT))
	if err != nil {
		return nil, fmt.Errorf("reading root metadata: %w", err)
	}
	return data, nil
}

// Stage stores content as a source that a draft can name. YARA sources may have
// MaxYARASource bytes, lists MaxHashSource. A staged source that no bundle uses
// is removed after a day.
func (r *Repository) Stage(ctx context.Context, name string, kind Kind, content io.Reader) (Source, error) {
	if err := CheckName(name); err != nil {
		return Source{}, err
	}
	limit := int64(MaxHashSource)
	if kind == KindYARA {
		limit = MaxYARASource
	}
	s, err := r.blobs.add(ctx, content, limit, r.step)
	if err != nil {
		return Source{}, fmt.Errorf("staging %s: %w", name, err)
	}
	s.Name, s.Kind = name, kind
	return s, nil
}

// Open returns a source's content; the caller closes it. Reading it to the end
// verifies it.
func (r *Repository) Open(s Source) (io.ReadCloser, error) { return r.blobs.open(s) }

// Active returns the manifest of the published bundle, nil if there is none.
// It must not be changed.
func (r *Repository) Active() *Manifest {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state.manifest
}

// Draft is what the next bundle shall be.
type Draft struct {
	By      string // who publishes, "user:NAME" or "system"
	Comment string
	// Sources as Stage returned them or the active manifest lists them.
	Sources []Source
	// Rules and Hashes that are usable, duplicates counted once.
	Rules  int
	Hashes int64
}

// Publish signs a draft as the next bundle and makes it visible to clients.
func (r *Repository) Publish(ctx context.Context, d Draft) (api.Bundle, error) {
	return r.publishNext(ctx, Manifest{By: d.By, Comment: d.Comment, Sources: d.Sources, Rules: d.Rules, Hashes: d.Hashes})
}

// Rollback publishes the content of an earlier bundle under a new epoch, so
// that clients, who never accept an older bundle, follow.
func (r *Repository) Rollback(ctx context.Context, epoch threat.Epoch, by, comment string) (api.Bundle, error) {
	old, err := r.Manifest(epoch)
	if err != nil {
		return api.Bundle{}, err
	}
	m := *old
	m.By, m.Comment, m.RollbackOf = by, comment, epoch
	return r.publishNext(ctx, m)
}

func (r *Repository) publishNext(ctx context.Context, m Manifest) (api.Bundle, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return api.Bundle{}, err
	}
	m.Epoch = 1
	if r.state.manifest != nil {
		m.Epoch = r.state.manifest.Epoch + 1
	}
	m.Created = r.now().UTC()
	if err := m.validate(); err != nil {
		return api.Bundle{}, err
	}
	for _, s := range m.Sources {
		if !r.blobs.has(s.Blob) {
			return api.Bundle{}, fmt.Errorf("publishing bundle %d: the content of source %s is not there", m.Epoch, s.Name)
		}
	}
	if err := r.publish(&m); err != nil {
		return api.Bundle{}, err
	}
	if err := r.collect(); err != nil {
		r.logger.Warn("collecting old bundles", slog.Any("error", err)) // the bundle is published all the same
	}
	return m.Bundle(true), nil
}

func (r *Repository) bundlePath(epoch threat.Epoch) string {
	return filepath.Join(r.dir, "bundles", strconv.FormatUint(uint64(epoch), 10)+".json")
}

// Manifest returns an earlier or the active bundle's manifest.
func (r *Repository) Manifest(epoch threat.Epoch) (*Manifest, error) {
	if active := r.Active(); active == nil || epoch > active.Epoch {
		return nil, fmt.Errorf("reading bundle %d: %w", epoch, ErrNotFound)
	}
	data, err := os.ReadFile(r.bundlePath(epoch))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("reading bundle %d: %w", epoch, ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("reading bundle %d: %w", epoch, err)
	}
	return ParseManifest(data)
}

// List returns the bundles that are kept, the newest, active one first.
func (r *Repository) List() ([]api.Bundle, error) {
	epochs, err := r.epochs()
	if err != nil {
		return nil, err
	}
	active := r.Active()
	list := []api.Bundle{}
	for _, e := range epochs {
		if active == nil || e > active.Epoch {
			continue
		}
		m, err := r.Manifest(e)
		if errors.Is(err, ErrNotFound) {
			continue // collected meanwhile
		}
		if err != nil {
			return nil, err
		}
		list = append(list, m.Bundle(e == active.Epoch))
	}
	return list, nil
}

// epochs lists the manifests on disk, newest first.
func (r *Repository) epochs() ([]threat.Epoch, error) {
	entries, err := os.ReadDir(filepath.Join(r.dir, "bundles"))
	if err != nil {
		return nil, fmt.Errorf("listing bundles: %w", err)
	}
	var list []threat.Epoch
	for _, e := range entries {
		if n, err := strconv.ParseUint(strings.TrimSuffix(e.Name(), ".json"), 10, 64); err == nil {
			list = append(list, threat.Epoch(n))
		}
	}
	slices.Sort(list)
	slices.Reverse(list)
	return list, nil
}

// collect removes what was never published and what is too old to be kept.
func (r *Repository) collect() error {
	epochs, err := r.epochs()
	if err != nil {
		return err
	}
	var active threat.Epoch
	blobsUsed, targetsUsed := map[threat.Hash]bool{}, map[string]bool{}
	if r.state.manifest != nil {
		active = r.state.manifest.Epoch
	}
	kept := 0
	for _, e := range epochs {
		data, err := os.ReadFile(r.bundlePath(e))
		if err != nil {
			return fmt.Errorf("collecting bundles: %w", err)
		}
		m, err := ParseManifest(data)
		if e > active || kept >= r.keep || err != nil && e != active {
			if err := os.Remove(r.bundlePath(e)); err != nil {
				return fmt.Errorf("collecting bundles: %w", err)
			}
			continue
		}
		if err != nil {
			return fmt.Errorf("collecting bundles: %w", err)
		}
		kept++
		targetsUsed[filepath.Base(r.targetPath(data))] = true
		for _, s := range m.Sources {
			blobsUsed[s.Blob] = true
		}
	}
	targets, err := os.ReadDir(filepath.Join(r.dir, "targets"))
	if err != nil {
		return fmt.Errorf("collecting bundles: %w", err)
	}
	for _, t := range targets {
		if !targetsUsed[t.Name()] {
			if err := os.Remove(filepath.Join(r.dir, "targets", t.Name())); err != nil {
				return fmt.Errorf("collecting bundles: %w", err)
			}
		}
	}
	return errors.Join(r.collectMetadata(), r.blobs.collect(blobsUsed, 24*time.Hour))
}
