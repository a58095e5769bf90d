package signature

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// targetName is the one target of the repository: the bundle's manifest.
const targetName = "bundle.json"

// state is what is published: the metadata of every role and the manifest.
type state struct {
	root      *metadata.Metadata[metadata.RootType]
	targets   *metadata.Metadata[metadata.TargetsType]
	snapshot  *metadata.Metadata[metadata.SnapshotType]
	timestamp *metadata.Metadata[metadata.TimestampType]
	manifest  *Manifest // nil before the first publication
	content   []byte    // the manifest's bytes
}

func (r *Repository) metadataPath(version int64, role string) string {
	name := role + ".json"
	if version > 0 {
		name = strconv.FormatInt(version, 10) + "." + name
	}
	return filepath.Join(r.dir, "metadata", name)
}

func (r *Repository) targetPath(content []byte) string {
	return filepath.Join(r.dir, "targets", digestOf(content).String()+"."+targetName)
}

// load reads and verifies what is published, following the timestamp, which is
// always written last.
func (r *Repository) load() (*state, error) {
	var (
		s   state
		err error
	)
	if s.root, err = r.latestRoot(); err != nil {
		return nil, err
	}
	s.timestamp, err = loadRole[metadata.TimestampType](r.metadataPath(0, metadata.TIMESTAMP), s.root, metadata.TIMESTAMP)
	if errors.Is(err, fs.ErrNotExist) {
		return &s, nil
	}
	if err != nil {
		return nil, err
	}
	version := s.timestamp.Signed.Meta["snapshot.json"].Version
	if s.snapshot, err = loadRole[metadata.SnapshotType](r.metadataPath(version, metadata.SNAPSHOT), s.root, metadata.SNAPSHOT); err != nil {
		return nil, err
	}
	targets := s.snapshot.Signed.Meta["targets.json"]
	if targets == nil {
		return nil, errors.New("loading snapshot metadata: it names no targets")
	}
	if s.targets, err = loadRole[metadata.TargetsType](r.metadataPath(targets.Version, metadata.TARGETS), s.root, metadata.TARGETS); err != nil {
		return nil, err
	}
	info := s.targets.Signed.Targets[targetName]
	if info == nil {
		return nil, errors.New("loading targets metadata: it names no bundle")
	}
	path := filepath.Join(r.dir, "targets", info.Hashes["sha256"].String()+"."+targetName)
	if s.content, err = os.ReadFile(path); err != nil {
		return nil, fmt.Errorf("loading the bundle: %w", err)
	}
	if err := info.VerifyLengthHashes(s.content); err != nil {
		return nil, fmt.Errorf("loading the bundle %s: %w: %w", path, ErrDamaged, err)
	}
	if s.manifest, err = ParseManifest(s.content); err != nil {
		return nil, fmt.Errorf("loading the bundle %s: %w", path, err)
	}
	return &s, nil
}

// latestRoot loads the newest root; each must be signed by its predecessor's
// keys, which are ours.
func (r *Repository) latestRoot() (*metadata.Metadata[metadata.RootType], error) {
	var last *metadata.Metadata[metadata.RootType]
	for version := int64(1); ; version++ {
		root, err := metadata.Root().FromFile(r.metadataPath(version, metadata.ROOT))
		if errors.Is(err, fs.ErrNotExist) && last != nil {
			return last, nil
		}
		if err != nil {
			return nil, fmt.Errorf("loading root metadata: %w", err)
		}
		if err := root.VerifyDelegate(metadata.ROOT, root); err != nil {
			return nil, fmt.Errorf("loading root metadata: %w", err)
		}
		last = root
	}
}

func loadRole[T metadata.Roles](path string, root *metadata.Metadata[metadata.RootType], role string) (*metadata.Metadata[T], error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("loading %s metadata: %w", role, err)
	}
	m, err := new(metadata.Metadata[T]).FromBytes(data)
	if err != nil {
		return nil, fmt.Errorf("loading %s: %w", path, err)
	}
	if err := root.VerifyDelegate(role, m); err != nil {
		return nil, fmt.Errorf("loading %s: %w", path, err)
	}
	return m, nil
}

// publish signs new targets metadata for the manifest and everything above it.
// Nothing is visible to clients before the timestamp, the last write.
func (r *Repository) publish(m *Manifest) error {
	content, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("publishing bundle %d: %w", m.Epoch, err)
	}
	if len(content) > maxManifest {
		return fmt.Errorf("publishing bundle %d: %w: too many sources", m.Epoch, ErrInvalid)
	}
	next := *r.state
	next.manifest, next.content = m, content
	if err := writeFile(r.bundlePath(m.Epoch), content, r.step); err != nil {
		return err
	}
	if err := writeFile(r.targetPath(content), content, r.step); err != nil {
		return err
	}
	if err := r.signTargets(&next); err != nil {
		return err
	}
	return r.commit(&next)
}

// commit writes snapshot and timestamp for what next holds and makes it the
// state. If that fails, the disk decides what the state is.
func (r *Repository) commit(next *state) error {
	err := r.signSnapshot(next)
	if err == nil {
		err = r.signTimestamp(next)
	}
	if err == nil {
		r.state = next
		return nil
	}
	loaded, lerr := r.load()
	if lerr != nil {
		return errors.Join(err, lerr)
	}
	r.state = loaded
	return err
}

func (r *Repository) signTargets(s *state) error {
	version := int64(1)
	if s.targets != nil {
		version = s.targets.Signed.Version + 1
	}
	s.targets = metadata.Targets(r.now().Add(targetsLife))
	s.targets.Signed.Version = version
	info, err := metadata.TargetFile().FromBytes(targetName, s.content, "sha256")
	if err != nil {
		return fmt.Errorf("signing targets: %w", err)
	}
	s.targets.Signed.Targets[targetName] = info
	data, err := sign(r.keys, metadata.TARGETS, s.targets)
	if err != nil {
		return err
	}
	return writeFile(r.metadataPath(version, metadata.TARGETS), data, r.step)
}

func (r *Repository) signSnapshot(s *state) error {
	version := int64(1)
	if s.snapshot != nil {
		version = s.snapshot.Signed.Version + 1
	}
	s.snapshot = metadata.Snapshot(r.now().Add(snapshotLife))
	s.snapshot.Signed.Version = version
	meta, err := describe(s.targets, s.targets.Signed.Version)
	if err != nil {
		return err
	}
	s.snapshot.Signed.Meta["targets.json"] = meta
	data, err := sign(r.keys, metadata.SNAPSHOT, s.snapshot)
	if err != nil {
		return err
	}
	return writeFile(r.metadataPath(version, metadata.SNAPSHOT), data, r.step)
}

func (r *Repository) signTimestamp(s *state) error {
	version := int64(1)
	if s.timestamp != nil {
		version = s.timestamp.Signed.Version + 1
	}
	s.timestamp = metadata.Timestamp(r.now().Add(timestampLife))
	s.timestamp.Signed.Version = version
	meta, err := describe(s.snapshot, s.snapshot.Signed.Version)
	if err != nil {
		return err
	}
	s.timestamp.Signed.Meta["snapshot.json"] = meta
	data, err := sign(r.keys, metadata.TIMESTAMP, s.timestamp)
	if err != nil {
		return err
	}
	return writeFile(r.metadataPath(0, metadata.TIMESTAMP), data, r.step)
}

// describe pins metadata by version, length and hash.
func describe[T metadata.Roles](m *metadata.Metadata[T], version int64) (*metadata.MetaFiles, error) {
	data, err := m.ToBytes(false)
	if err != nil {
		return nil, err
	}
	sum := digestOf(data)
	f := metadata.MetaFile(version)
	f.Length = int64(len(data))
	f.Hashes = metadata.Hashes{"sha256": metadata.HexBytes(bytes.Clone(sum[:]))}
	return f, nil
}

// renew signs again what expires soon.
func (r *Repository) renew() error {
	now := r.now()
	if due(r.state.root.Signed.Expires, now, rootLife) {
		root, err := newRoot(r.keys, now)
		if err != nil {
			return err
		}
		root.Signed.Version = r.state.root.Signed.Version + 1
		data, err := sign(r.keys, metadata.ROOT, root)
		if err != nil {
			return err
		}
		if err := writeFile(r.metadataPath(root.Signed.Version, metadata.ROOT), data, r.step); err != nil {
			return err
		}
		r.state.root = root
	}
	if r.state.manifest == nil {
		return nil
	}
	next := *r.state
	switch {
	case due(next.targets.Signed.Expires, now, targetsLife):
		if err := r.signTargets(&next); err != nil {
			return err
		}
		return r.commit(&next)
	case due(next.snapshot.Signed.Expires, now, snapshotLife):
		return r.commit(&next)
	case next.timestamp.Signed.Expires.Sub(now) < timestampLife-timestampUse:
		if err := r.signTimestamp(&next); err != nil {
			loaded, lerr := r.load()
			if lerr == nil {
				r.state = loaded
			}
			return errors.Join(err, lerr)
		}
		r.state = &next
	}
	return nil
}

// collectMetadata removes snapshots and targets metadata that no client needs
// any more: those some versions behind. Roots stay for clients of any age.
func (r *Repository) collectMetadata() error {
	const behind = 16
	entries, err := os.ReadDir(filepath.Join(r.dir, "metadata"))
	if err != nil {
		return fmt.Errorf("collecting metadata: %w", err)
	}
	newest := map[string]int64{}
	if r.state.manifest != nil {
		newest["targets.json"] = r.state.targets.Signed.Version
		newest["snapshot.json"] = r.state.snapshot.Signed.Version
	}
	for _, e := range entries {
		number, role, ok := strings.Cut(e.Name(), ".")
		version, err := strconv.ParseInt(number, 10, 64)
		if !ok || err != nil || version > newest[role]-behind {
			continue
		}
		if err := os.Remove(filepath.Join(r.dir, "metadata", e.Name())); err != nil {
			return fmt.Errorf("collecting metadata: %w", err)
		}
	}
	return nil
}

// clean removes temporary files of a crash.
func clean(dirs ...string) error {
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil {
			return fmt.Errorf("cleaning up: %w", err)
		}
		for _, e := range entries {
			if !strings.HasPrefix(e.Name(), ".new-") {
				continue
			}
			if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
				return fmt.Errorf("cleaning up: %w", err)
			}
		}
	}
	return nil
}
