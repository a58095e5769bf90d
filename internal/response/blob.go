package response

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/response/seal"
	"github.com/lazaret/lazaret/internal/sqlite"
	"github.com/lazaret/lazaret/internal/threat"
)

const (
	blobSuffix = ".sealed"
	tmpPrefix  = "tmp-"
)

func (v *Vault) blob(object threat.Hash) string {
	return filepath.Join(v.blobs, object.String()+blobSuffix)
}

// noSpace classifies SQLite's own disk-full errors too.
func noSpace(err error) error {
	if errors.Is(sqlite.Classify(err), sqlite.ErrFull) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return classify(err)
}

// reader reads a file from its start without moving its offset, until ctx ends.
type reader struct {
	ctx context.Context
	r   *io.SectionReader
}

func readAll(ctx context.Context, f *os.File) io.Reader {
	return &reader{ctx, io.NewSectionReader(f, 0, math.MaxInt64)}
}

func (r *reader) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}

func hashFile(ctx context.Context, f *os.File) (threat.Hash, int64, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, readAll(ctx, f), make([]byte, 256<<10))
	return threat.Hash(h.Sum(nil)), n, err
}

// store makes sure that the vault holds the content of f, which must be the
// object. An intact blob that is there already is used; a damaged one is
// replaced. It returns the number of bytes.
func (v *Vault) store(ctx context.Context, id string, f *os.File, object threat.Hash) (int64, error) {
	intact, err := v.intact(ctx, object)
	if err != nil {
		return 0, err
	}
	if intact {
		v.step("store: blob is there")
		got, n, err := hashFile(ctx, f)
		if err == nil && got != object {
			err = ErrChanged
		}
		return n, err
	}
	if err := v.fits(f); err != nil {
		return 0, err
	}
	tmp := filepath.Join(v.blobs, tmpPrefix+id)
	n, err := v.write(ctx, tmp, f, object)
	if err != nil {
		return 0, errors.Join(noSpace(err), os.RemoveAll(tmp))
	}
	v.step("store: blob written")
	if err := os.Rename(tmp, v.blob(object)); err != nil {
		return 0, errors.Join(noSpace(err), os.RemoveAll(tmp))
	}
	v.step("store: blob renamed")
	if err := syncDir(v.blobs); err != nil {
		return 0, noSpace(err)
	}
	v.step("store: blob durable")
	return n, nil
}

func (v *Vault) write(ctx context.Context, tmp string, f *os.File, object threat.Hash) (n int64, err error) {
	w, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	v.step("store: blob created")
	s, err := seal.NewWriter(w, v.key, object[:])
	if err != nil {
		return 0, err
	}
	h := sha256.New()
	if n, err = io.CopyBuffer(io.MultiWriter(s, h), readAll(ctx, f), make([]byte, 256<<10)); err != nil {
		return 0, err
	}
	if threat.Hash(h.Sum(nil)) != object {
		return 0, ErrChanged
	}
	if err := s.Close(); err != nil {
		return 0, err
	}
	v.step("store: blob complete")
	return n, w.Sync()
}

// fits reports ErrNoSpace if the file would eat into the reserve: quarantine
// must not fill the host's disk.
func (v *Vault) fits(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(v.blobs, &fs); err != nil {
		return fmt.Errorf("asking for free space: %w", err)
	}
	free := int64(min(fs.Bavail, math.MaxInt64/uint64(max(fs.Bsize, 1)))) * int64(fs.Bsize)
	if need := seal.Size(info.Size()); v.config.Reserve >= 0 && need > free-v.config.Reserve {
		return fmt.Errorf("%w: the vault has %d bytes free, needs %d and keeps %d", ErrNoSpace, free, need, v.config.Reserve)
	}
	return nil
}

// intact reports whether the object's blob exists and is authentic to its end:
// nothing is entrusted to a blob that was not read.
func (v *Vault) intact(ctx context.Context, object threat.Hash) (bool, error) {
	r, err := v.open(object)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, seal.ErrDamaged) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer r.Close()
	h := sha256.New()
	_, err = io.Copy(h, r)
	if errors.Is(err, seal.ErrDamaged) {
		return false, nil
	}
	return err == nil && threat.Hash(h.Sum(nil)) == object, err
}

// content reads a blob and closes its file.
type content struct {
	*seal.Reader
	f *os.File
}

func (c *content) Close() error { return c.f.Close() }

func (v *Vault) open(object threat.Hash) (io.ReadCloser, error) {
	f, err := os.Open(v.blob(object))
	if err != nil {
		return nil, err
	}
	r, err := seal.NewReader(f, v.key, object[:])
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &content{r, f}, nil
}

// Open returns the content of an item. Every byte that is read is authentic;
// an error wrapping seal.ErrDamaged in place of io.EOF says that the rest is
// not. The caller closes it.
func (v *Vault) Open(ctx context.Context, id string) (io.ReadCloser, error) {
	item, err := v.Get(ctx, id)
	if err != nil {
		return nil, fmt.Errorf("opening quarantine item %s: %w", id, err)
	}
	if item.phase != phaseHeld && item.phase != phaseRemoving && item.phase != phaseRestoring {
		return nil, fmt.Errorf("opening quarantine item %s: %w: its state is %s", id, ErrState, item.State)
	}
	r, err := v.open(item.Object)
	if err != nil {
		return nil, fmt.Errorf("opening quarantine item %s: %w", id, err)
	}
	return r, nil
}

const referring = "phase IN ('" + phaseStoring + "','" + phaseRemoving + "','" + phaseHeld + "','" + phaseRestoring + "')"

// release deletes the object's blob if no item needs it.
func (v *Vault) release(ctx context.Context, object threat.Hash) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	var n int
	err := v.db.QueryRowContext(ctx, "SELECT count(*) FROM item WHERE object = ? AND "+referring, object[:]).Scan(&n)
	if err != nil || n > 0 {
		return err
	}
	v.step("release: unreferenced")
	if err := os.Remove(v.blob(object)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("deleting quarantined content: %w", err)
	}
	return nil
}

// sweep deletes blobs that no item refers to and files that were never
// finished; only recovery calls it, before anything is stored.
func (v *Vault) sweep(ctx context.Context) error {
	entries, err := os.ReadDir(v.blobs)
	if err != nil {
		return fmt.Errorf("sweeping vault: %w", err)
	}
	for _, e := range entries {
		if id, ok := strings.CutPrefix(e.Name(), tmpPrefix); ok {
			if v.take(id) { // nobody is writing it
				err = errors.Join(err, os.Remove(filepath.Join(v.blobs, e.Name())))
				v.done(id)
			}
			continue
		}
		name, ok := strings.CutSuffix(e.Name(), blobSuffix)
		if object, parseErr := threat.ParseHash(name); ok && parseErr == nil {
			err = errors.Join(err, v.release(ctx, object))
		}
	}
	return err
}
