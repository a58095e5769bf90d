package audit

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/google/renameio/v2"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxEntry bounds one entry in bytes.
const MaxEntry = 60 << 10

// ErrDamaged says that the log on disk is not the one its checkpoint signs:
// somebody changed it or the file system lost data. The log is evidence, so it
// is never repaired silently; restore it from a copy or move it away.
var ErrDamaged = errors.New("audit log is damaged")

// Log is the append-only log. It is safe for concurrent use.
type Log struct {
	dir    string
	signer note.Signer
	verify note.Verifier
	vkey   string

	entries, offsets, hashes *os.File

	mu         sync.Mutex // guards what follows and the files' ends
	tree       tlog.Tree
	end        int64 // bytes in entries covered by tree
	checkpoint []byte
}

// Open opens or creates the log in dir. Origin names the log in checkpoints
// and is used only when a new log is made. It returns an error wrapping
// ErrDamaged if files and checkpoint do not fit. Close closes the files.
func Open(dir, origin string) (*Log, error) {
	l, err := open(dir, origin)
	if err != nil {
		return nil, fmt.Errorf("opening audit log %s: %w", dir, err)
	}
	return l, nil
}

func open(dir, origin string) (_ *Log, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	l := &Log{dir: dir}
	if err := l.keys(origin); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.Close())
		}
	}()
	for name, f := range map[string]**os.File{"entries.jsonl": &l.entries, "offsets": &l.offsets, "hashes": &l.hashes} {
		if *f, err = os.OpenFile(l.path(name), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
			return nil, err
		}
	}
	if err := l.load(); err != nil {
		return nil, err
	}
	return l, l.cut()
}

func (l *Log) path(name string) string { return filepath.Join(l.dir, name) }

// keys reads the signing key, or makes one for a log that does not exist yet.
func (l *Log) keys(origin string) error {
	skey, err := os.ReadFile(l.path("key"))
	if errors.Is(err, fs.ErrNotExist) {
		if _, cerr := os.Stat(l.path("checkpoint")); !errors.Is(cerr, fs.ErrNotExist) {
			return fmt.Errorf("%w: there is a checkpoint but no key", ErrDamaged)
		}
		s, v, kerr := note.GenerateKey(rand.Reader, origin)
		if kerr != nil {
			return fmt.Errorf("making signing key: %w", kerr)
		}
		skey = []byte(s)
		if err = renameio.WriteFile(l.path("key.pub"), []byte(v+"\n"), 0o644); err == nil {
			err = renameio.WriteFile(l.path("key"), []byte(s+"\n"), 0o600)
		}
	}
	if err != nil {
		return err
	}
	if l.signer, err = note.NewSigner(strings.TrimSpace(string(skey))); err != nil {
		return fmt.Errorf("reading signing key: %w", err)
	}
	pub, err := os.ReadFile(l.path("key.pub"))
	if err != nil {
		return err
	}
	l.vkey = strings.TrimSpace(string(pub))
	if l.verify, err = note.NewVerifier(l.vkey); err != nil {
		return fmt.Errorf("reading public key: %w", err)
	}
	return nil
}

// load reads the checkpoint and proves that the files hold its tree: the root
// is computed from about log2(size) stored hashes.
func (l *Log) load() error {
	b, err := os.ReadFile(l.path("checkpoint"))
	if errors.Is(err, fs.ErrNotExist) {
		return l.start()
	}
	if err != nil {
		return err
	}
	if l.tree, err = ParseCheckpoint(b, l.verify); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	l.checkpoint = b
	root, err := tlog.TreeHash(l.tree.N, l)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if root != l.tree.Hash {
		return fmt.Errorf("%w: the stored hashes do not give the signed root", ErrDamaged)
	}
	if l.end, err = l.offset(l.tree.N - 1); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	info, err := l.entries.Stat()
	if err != nil {
		return err
	}
	if info.Size() < l.end {
		return fmt.Errorf("%w: entries are cut off at %d of %d bytes", ErrDamaged, info.Size(), l.end)
	}
	return nil
}

// start signs the empty tree of a new log. A log that has entries always has a
// checkpoint: without it somebody took it away.
func (l *Log) start() error {
	info, err := l.entries.Stat()
	if err != nil {
		return err
	}
	if info.Size() > 0 {
		return fmt.Errorf("%w: there are entries but no checkpoint", ErrDamaged)
	}
	if l.tree.Hash, err = tlog.TreeHash(0, l); err != nil {
		return err
	}
	if l.checkpoint, err = sign(l.verify.Name(), l.tree, l.signer); err != nil {
		return err
	}
	return renameio.WriteFile(l.path("checkpoint"), l.checkpoint, 0o644)
}

// maxUnsigned is how many entries may lie behind the last checkpoint after a
// kill: one call of Append.
const maxUnsigned = 4096

// cut drops what a killed Append left behind the checkpoint.
func (l *Log) cut() error {
	for f, size := range map[*os.File]int64{
		l.entries: l.end, l.offsets: 8 * l.tree.N, l.hashes: tlog.HashSize * tlog.StoredHashCount(l.tree.N),
	} {
		if err := f.Truncate(size); err != nil {
			return fmt.Errorf("dropping unsigned entries: %w", err)
		}
	}
	return nil
}

// offset returns where entry i's line ends; 0 for -1.
func (l *Log) offset(i int64) (int64, error) {
	if i < 0 {
		return 0, nil
	}
	var b [8]byte
	if _, err := l.offsets.ReadAt(b[:], 8*i); err != nil {
		return 0, fmt.Errorf("reading offset of entry %d: %w", i, err)
	}
	n := binary.LittleEndian.Uint64(b[:])
	if n > 1<<62 {
		return 0, fmt.Errorf("reading offset of entry %d: %d is no offset", i, n)
	}
	return int64(n), nil
}

// ReadHashes implements tlog.HashReader.
func (l *Log) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(indexes))
	for i, x := range indexes {
		if _, err := l.hashes.ReadAt(out[i][:], x*tlog.HashSize); err != nil {
			return nil, fmt.Errorf("reading stored hash %d: %w", x, err)
		}
	}
	return out, nil
}

// Append adds entries (each a JSON text without line feeds, at most MaxEntry
// bytes) at index first, makes them durable and signs a new checkpoint.
// Entries the log already has are skipped, so a repeated call is harmless. On
// an error the log is as before.
func (l *Log) Append(first int64, entries [][]byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if first > l.tree.N {
		return fmt.Errorf("appending to audit log: %w: entries %d to %d are missing", ErrDamaged, l.tree.N, first-1)
	}
	skip := min(l.tree.N-first, int64(len(entries)))
	entries = entries[skip:]
	for len(entries) > 0 {
		n := min(len(entries), maxUnsigned)
		if err := l.append(entries[:n]); err != nil {
			return fmt.Errorf("appending to audit log: %w", errors.Join(err, l.cut()))
		}
		entries = entries[n:]
	}
	return nil
}

func (l *Log) append(entries [][]byte) error {
	var lines, offsets, hashes []byte
	base := tlog.StoredHashCount(l.tree.N)
	pending := map[int64]tlog.Hash{} // hashes of this call, not yet readable from the file
	reader := tlog.HashReaderFunc(func(indexes []int64) ([]tlog.Hash, error) {
		out := make([]tlog.Hash, len(indexes))
		for i, x := range indexes {
			if h, ok := pending[x]; ok {
				out[i] = h
				continue
			}
			h, err := l.ReadHashes([]int64{x})
			if err != nil {
				return nil, err
			}
			out[i] = h[0]
		}
		return out, nil
	})
	n := l.tree.N
	for _, e := range entries {
		if len(e) > MaxEntry || bytes.IndexByte(e, '\n') >= 0 || len(e) == 0 {
			return fmt.Errorf("entry %d is empty, longer than %d bytes or not one line", n, MaxEntry)
		}
		stored, err := tlog.StoredHashes(n, e, reader)
		if err != nil {
			return err
		}
		for _, h := range stored {
			pending[base+int64(len(hashes))/tlog.HashSize] = h
			hashes = append(hashes, h[:]...)
		}
		lines = append(append(lines, e...), '\n')
		offsets = binary.LittleEndian.AppendUint64(offsets, uint64(l.end)+uint64(len(lines)))
		n++
	}
	root, err := tlog.TreeHash(n, reader)
	if err != nil {
		return err
	}
	for _, w := range []struct {
		f   *os.File
		b   []byte
		off int64
	}{{l.entries, lines, l.end}, {l.offsets, offsets, 8 * l.tree.N}, {l.hashes, hashes, tlog.HashSize * base}} {
		if _, err := w.f.WriteAt(w.b, w.off); err != nil {
			return err
		}
		if err := w.f.Sync(); err != nil {
			return err
		}
	}
	tree := tlog.Tree{N: n, Hash: root}
	cp, err := sign(l.verify.Name(), tree, l.signer)
	if err != nil {
		return err
	}
	if err := renameio.WriteFile(l.path("checkpoint"), cp, 0o644); err != nil {
		return err
	}
	l.tree, l.checkpoint = tree, cp
	l.end += int64(len(lines))
	return nil
}

// Close closes the files.
func (l *Log) Close() error {
	var errs []error
	for _, f := range []*os.File{l.entries, l.offsets, l.hashes} {
		if f != nil {
			errs = append(errs, f.Close())
		}
	}
	return errors.Join(errs...)
}
