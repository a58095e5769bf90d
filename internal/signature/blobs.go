package signature

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/lazaret/lazaret/internal/threat"
)

// ErrDamaged is wrapped by errors about stored content that is not what its
// digest says.
var ErrDamaged = errors.New("content does not match its digest")

// blobs is a directory of immutable files named by their SHA-256.
type blobs struct{ dir string }

func (b blobs) path(h threat.Hash) string { return filepath.Join(b.dir, h.String()) }

// add compresses content into a blob; source's digests and sizes are filled in.
// The content may have at most limit bytes.
func (b blobs) add(ctx context.Context, r io.Reader, limit int64, step stepFunc) (Source, error) {
	f, err := os.CreateTemp(b.dir, "new-*")
	if err != nil {
		return Source{}, fmt.Errorf("making a blob: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // after the rename there is nothing left
	defer func() { _ = f.Close() }()           // closed and checked below
	var (
		stored  = counter{w: f, sum: sha256.New()}
		content = counter{sum: sha256.New()}
	)
	enc, err := zstd.NewWriter(&stored, zstd.WithEncoderConcurrency(1))
	if err != nil {
		return Source{}, fmt.Errorf("making a blob: %w", err)
	}
	content.w = enc
	n, err := io.Copy(&content, io.LimitReader(readerContext{ctx, r}, limit+1))
	if err == nil && n > limit {
		err = fmt.Errorf("the content has more than %d bytes", limit)
	}
	if err := errors.Join(err, enc.Close()); err != nil {
		return Source{}, fmt.Errorf("making a blob: %w", err)
	}
	s := Source{SHA256: content.digest(), Size: content.n, Blob: stored.digest(), BlobSize: stored.n}
	if err := errors.Join(step("sync blob"), f.Sync(), f.Close()); err != nil {
		return Source{}, fmt.Errorf("storing a blob: %w", err)
	}
	return s, b.adopt(f.Name(), s.Blob, step)
}

// adopt gives a complete, synced file its final name. If there is such a blob
// already it is replaced, which heals it if it was damaged.
func (b blobs) adopt(name string, h threat.Hash, step stepFunc) error {
	if err := errors.Join(step("rename blob"), os.Chmod(name, 0o600)); err != nil {
		return fmt.Errorf("storing a blob: %w", err)
	}
	if err := os.Rename(name, b.path(h)); err != nil {
		return fmt.Errorf("storing a blob: %w", err)
	}
	return syncDir(b.dir)
}

// dropDamaged removes the blobs of the given sources whose bytes are provably
// wrong, so that they are fetched or imported again.
func (b blobs) dropDamaged(sources []Source) error {
	var errs []error
	for _, s := range sources {
		got, err := seal(b.path(s.Blob))
		if err == nil && got != s.Blob {
			errs = append(errs, os.Remove(b.path(s.Blob)))
		}
	}
	return errors.Join(errs...)
}

func (b blobs) has(h threat.Hash) bool {
	st, err := os.Stat(b.path(h))
	return err == nil && st.Mode().IsRegular()
}

// open returns a source's content. Reading it to the end verifies the digests:
// wrong content ends in an error that wraps ErrDamaged instead of io.EOF.
func (b blobs) open(s Source) (io.ReadCloser, error) {
	f, err := os.Open(b.path(s.Blob))
	if err != nil {
		return nil, fmt.Errorf("opening source %s: %w", s.Name, err)
	}
	dec, err := zstd.NewReader(f, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(64<<20))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("opening source %s: %w", s.Name, err), f.Close())
	}
	return &content{source: s, file: f, dec: dec, sum: sha256.New()}, nil
}

// read returns a source's whole content, verified.
func (b blobs) read(s Source) ([]byte, error) {
	r, err := b.open(s)
	if err != nil {
		return nil, err
	}
	var buf bytes.Buffer
	buf.Grow(int(min(s.Size, MaxYARASource)))
	_, err = buf.ReadFrom(r)
	return buf.Bytes(), errors.Join(err, r.Close())
}

// collect removes blobs that are not kept and older than the grace period,
// which protects imports under way, and what crashes left behind.
func (b blobs) collect(keep map[threat.Hash]bool, grace time.Duration) error {
	entries, err := os.ReadDir(b.dir)
	if err != nil {
		return fmt.Errorf("collecting blobs: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if h, err := threat.ParseHash(e.Name()); err == nil && keep[h] {
			continue
		}
		info, err := e.Info()
		if err != nil || time.Since(info.ModTime()) < grace {
			continue // vanished, or still being made
		}
		if err := os.Remove(filepath.Join(b.dir, e.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("collecting blobs: %w", err))
		}
	}
	return errors.Join(errs...)
}

// content decompresses and verifies.
type content struct {
	source Source
	file   *os.File
	dec    *zstd.Decoder
	sum    hash.Hash
	n      int64
}

func (c *content) Read(p []byte) (int, error) {
	n, err := c.dec.Read(p)
	c.n += int64(n)
	if c.n > c.source.Size {
		return 0, fmt.Errorf("reading source %s: %w", c.source.Name, ErrDamaged)
	}
	c.sum.Write(p[:n])
	switch {
	case err == nil:
	case !errors.Is(err, io.EOF):
		err = fmt.Errorf("reading source %s: %w: %w", c.source.Name, ErrDamaged, err)
	case c.n != c.source.Size || threat.Hash(c.sum.Sum(nil)) != c.source.SHA256:
		err = fmt.Errorf("reading source %s: %w", c.source.Name, ErrDamaged)
	}
	return n, err
}

func (c *content) Close() error {
	c.dec.Close()
	return c.file.Close()
}

// counter counts and hashes what passes.
type counter struct {
	w   io.Writer
	sum hash.Hash
	n   int64
}

func (c *counter) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	c.n += int64(n)
	c.sum.Write(p[:n])
	return n, err
}

func (c *counter) digest() threat.Hash { return threat.Hash(c.sum.Sum(nil)) }

// readerContext ends reading when ctx ends.
type readerContext struct {
	ctx context.Context
	r   io.Reader
}

func (r readerContext) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.r.Read(p)
}
