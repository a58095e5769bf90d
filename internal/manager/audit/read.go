package audit

import (
	"bufio"
	"bytes"
	"fmt"
	"io"

	"golang.org/x/mod/sumdb/tlog"
)

// ErrNoEntry says the log has no entry of that index.
var ErrNoEntry = fmt.Errorf("no such audit entry")

// Size returns the number of entries.
func (l *Log) Size() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tree.N
}

// Checkpoint returns the newest signed checkpoint (nil while the log is
// empty), its size and the verifier key.
func (l *Log) Checkpoint() (checkpoint []byte, size int64, vkey string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.checkpoint, l.tree.N, l.vkey
}

// Entry returns the exact bytes of entry i.
func (l *Log) Entry(i int64) ([]byte, error) {
	b, err := l.Entries(i, 1)
	if err != nil {
		return nil, err
	}
	return b[0], nil
}

// Entries returns n entries from index first on. All must exist.
func (l *Log) Entries(first, n int64) ([][]byte, error) {
	if first < 0 || n < 1 || first+n > l.Size() {
		return nil, fmt.Errorf("reading audit entries %d to %d: %w", first, first+n-1, ErrNoEntry)
	}
	start, err := l.offset(first - 1)
	if err != nil {
		return nil, err
	}
	end, err := l.offset(first + n - 1)
	if err != nil {
		return nil, err
	}
	if end <= start || end-start > n*(MaxEntry+1) {
		return nil, fmt.Errorf("reading audit entry %d: %w: wrong offsets", first, ErrDamaged)
	}
	b := make([]byte, end-start)
	if _, err := l.entries.ReadAt(b, start); err != nil {
		return nil, fmt.Errorf("reading audit entry %d: %w", first, err)
	}
	lines := bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
	if int64(len(lines)) != n {
		return nil, fmt.Errorf("reading audit entry %d: %w: want %d lines, got %d", first, ErrDamaged, n, len(lines))
	}
	return lines, nil
}

// Prove returns entry i, its audit path in the tree of the newest checkpoint,
// and that checkpoint (RFC 6962 section 2.1.1).
func (l *Log) Prove(i int64) (entry []byte, proof tlog.RecordProof, checkpoint []byte, err error) {
	checkpoint, size, _ := l.Checkpoint()
	if entry, err = l.Entry(i); err != nil {
		return nil, nil, nil, err
	}
	if proof, err = tlog.ProveRecord(size, i, l); err != nil {
		return nil, nil, nil, fmt.Errorf("proving audit entry %d: %w", i, err)
	}
	return entry, proof, checkpoint, nil
}

// ProveConsistency proves that the first size entries of the newest
// checkpoint's tree are those of an older one (RFC 6962 section 2.1.2).
func (l *Log) ProveConsistency(size int64) (tlog.TreeProof, error) {
	_, now, _ := l.Checkpoint()
	p, err := tlog.ProveTree(now, size, l)
	if err != nil {
		return nil, fmt.Errorf("proving consistency with size %d: %w", size, err)
	}
	return p, nil
}

// Export writes the log as one stream that VerifyStream checks: a line per
// entry, an empty line, the checkpoint.
func (l *Log) Export(w io.Writer) error {
	checkpoint, size, _ := l.Checkpoint()
	end, err := l.offset(size - 1)
	if err != nil {
		return err
	}
	buf := bufio.NewWriterSize(w, 64<<10)
	if _, err := io.Copy(buf, io.NewSectionReader(l.entries, 0, end)); err != nil {
		return fmt.Errorf("exporting audit log: %w", err)
	}
	if _, err := fmt.Fprintf(buf, "\n%s", checkpoint); err != nil {
		return fmt.Errorf("exporting audit log: %w", err)
	}
	if err := buf.Flush(); err != nil {
		return fmt.Errorf("exporting audit log: %w", err)
	}
	return nil
}
