package audit

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// Report is the result of a verification. The log is as it was signed if
// Problems is empty.
type Report struct {
	Size       int64     `json:"size"` // entries covered by the checkpoint
	Root       string    `json:"root"` // base64
	Checkpoint string    `json:"checkpoint"`
	First      time.Time `json:"first,omitzero"` // time of the first entry
	Last       time.Time `json:"last,omitzero"`
	// Unsigned entries lie behind the checkpoint: a writer was stopped before it
	// signed. They prove nothing.
	Unsigned int64 `json:"unsigned,omitempty"`
	// Remembered is the size of the older checkpoint that was compared, if any.
	Remembered int64    `json:"remembered,omitempty"`
	Problems   []string `json:"problems"`
}

// OK reports whether nothing is wrong.
func (r Report) OK() bool { return len(r.Problems) == 0 }

// Options of a verification.
type Options struct {
	// Key is the verifier key. It should come from another place than the log:
	// who can replace both can forge both. Verify reads key.pub beside the log
	// if it is empty.
	Key string
	// Remembered is an older checkpoint (signed note) kept elsewhere; the log
	// must contain its tree as a prefix. Only it finds a log that was cut off or
	// rewritten by somebody who has the signing key.
	Remembered []byte
}

// Verify checks the log in dir without the manager: it reads every entry,
// rebuilds the tree and compares it with the signed checkpoint. What is wrong
// with the log is in the report; the error says that it could not be read.
func Verify(dir string, o Options) (Report, error) {
	if o.Key == "" {
		b, err := os.ReadFile(filepath.Join(dir, "key.pub"))
		if err != nil {
			return Report{}, fmt.Errorf("reading public key: %w", err)
		}
		o.Key = string(bytes.TrimSpace(b))
	}
	cp, err := os.ReadFile(filepath.Join(dir, "checkpoint"))
	if err != nil {
		return Report{}, fmt.Errorf("reading checkpoint: %w", err)
	}
	f, err := os.Open(filepath.Join(dir, "entries.jsonl"))
	if err != nil {
		return Report{}, fmt.Errorf("reading entries: %w", err)
	}
	defer f.Close()
	h, err := os.Open(filepath.Join(dir, "hashes"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return Report{}, fmt.Errorf("reading hashes: %w", err)
	}
	var stored io.ReaderAt
	if err == nil {
		defer h.Close()
		stored = h
	}
	return verify(f, cp, stored, o)
}

// VerifyStream checks a log written by Export; Options.Key is required.
func VerifyStream(r io.Reader, o Options) (Report, error) {
	if o.Key == "" {
		return Report{}, errors.New("verifying audit stream: the public key is missing")
	}
	return verify(r, nil, nil, o)
}

// verify reads entry lines up to an empty line or the end; a checkpoint that
// is not given follows the empty line. stored, if any, only helps to name the
// entry that was changed.
func verify(r io.Reader, checkpoint []byte, stored io.ReaderAt, o Options) (Report, error) {
	v, err := note.NewVerifier(o.Key)
	if err != nil {
		return Report{}, fmt.Errorf("reading public key: %w", err)
	}
	rep := Report{Problems: []string{}}
	problem := func(format string, args ...any) {
		if len(rep.Problems) < 20 { // enough to act upon
			rep.Problems = append(rep.Problems, fmt.Sprintf(format, args...))
		}
	}
	var old *tlog.Tree
	if len(o.Remembered) > 0 {
		t, err := ParseCheckpoint(o.Remembered, v)
		if err != nil {
			return Report{}, fmt.Errorf("reading remembered checkpoint: %w", err)
		}
		old, rep.Remembered = &t, t.N
	}
	limit := int64(-1) // unknown until the checkpoint is read
	if checkpoint != nil {
		tree, err := ParseCheckpoint(checkpoint, v)
		if err != nil {
			problem("%v", err)
			return rep, nil
		}
		limit = tree.N
	}

	b := newBuilder()
	in := bufio.NewReaderSize(r, 2*MaxEntry)
	for {
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			problem("entry %d is longer than %d bytes", b.n, MaxEntry)
			return rep, nil
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return Report{}, fmt.Errorf("reading entry %d: %w", b.n, err)
		}
		if len(line) == 0 || (checkpoint == nil && len(line) == 1) {
			break
		}
		if limit >= 0 && b.n >= limit {
			rep.Unsigned++
			continue
		}
		if line[len(line)-1] != '\n' {
			problem("entry %d is cut off", b.n)
			break
		}
		line = line[:len(line)-1]
		b.check(line, stored, &rep, problem)
		if old != nil && b.n == old.N && b.root() != old.Hash {
			problem("the first %d entries are not those of the remembered checkpoint", old.N)
		}
	}
	if checkpoint == nil {
		if checkpoint, err = io.ReadAll(io.LimitReader(in, maxCheckpoint+1)); err != nil {
			return Report{}, fmt.Errorf("reading checkpoint: %w", err)
		}
	}
	tree, err := ParseCheckpoint(checkpoint, v)
	if err != nil {
		problem("%v", err)
		return rep, nil
	}
	rep.Size, rep.Root, rep.Checkpoint = tree.N, tree.Hash.String(), string(checkpoint)
	switch {
	case b.n < tree.N:
		problem("the checkpoint covers %d entries but only %d are there", tree.N, b.n)
	case b.n > tree.N:
		problem("the checkpoint covers %d entries but %d are there", tree.N, b.n)
	case b.root() != tree.Hash:
		problem("the entries do not give the signed root hash: entries were changed, removed, added or reordered")
	}
	if old != nil && old.N > tree.N {
		problem("the log has %d entries but had %d when the remembered checkpoint was made: it was cut off", tree.N, old.N)
	}
	return rep, nil
}

// builder computes the root of a growing tree while keeping only the hashes of
// its right edge.
type builder struct {
	n    int64
	edge []tlog.Hash // roots of the perfect subtrees, largest first
}

func newBuilder() *builder { return &builder{} }

func (b *builder) check(line []byte, stored io.ReaderAt, rep *Report, problem func(string, ...any)) {
	h := tlog.RecordHash(line)
	if stored != nil {
		var want tlog.Hash
		if _, err := stored.ReadAt(want[:], tlog.HashSize*tlog.StoredHashIndex(0, b.n)); err == nil && want != h {
			problem("entry %d was changed or moved", b.n)
		}
	}
	var e struct {
		Index int64     `json:"index"`
		Time  time.Time `json:"time"`
	}
	if err := json.Unmarshal(line, &e); err != nil {
		problem("entry %d is not JSON", b.n)
	} else if e.Index != b.n {
		problem("entry %d says it is entry %d: entries were removed, added or reordered", b.n, e.Index)
	}
	if b.n == 0 {
		rep.First = e.Time
	}
	rep.Last = e.Time
	b.add(h)
}

func (b *builder) add(h tlog.Hash) {
	for x := b.n; x&1 == 1; x >>= 1 {
		h = tlog.NodeHash(b.edge[len(b.edge)-1], h)
		b.edge = b.edge[:len(b.edge)-1]
	}
	b.edge = append(b.edge, h)
	b.n++
}

func (b *builder) root() tlog.Hash {
	if len(b.edge) == 0 {
		h, _ := tlog.TreeHash(0, nil) // of no hashes: reads none
		return h
	}
	h := b.edge[len(b.edge)-1]
	for i := len(b.edge) - 2; i >= 0; i-- {
		h = tlog.NodeHash(b.edge[i], h)
	}
	return h
}

// CheckProof verifies an answer of the proof route offline: that entry is the
// index'th of the tree a checkpoint speaks of. Proof holds base64 hashes.
func CheckProof(entry []byte, index int64, proof []string, checkpoint []byte, key string) error {
	v, err := note.NewVerifier(key)
	if err != nil {
		return fmt.Errorf("reading public key: %w", err)
	}
	tree, err := ParseCheckpoint(checkpoint, v)
	if err != nil {
		return err
	}
	var p tlog.RecordProof
	for _, s := range proof {
		h, err := tlog.ParseHash(s)
		if err != nil {
			return fmt.Errorf("reading proof: %w", err)
		}
		p = append(p, h)
	}
	if err := tlog.CheckRecord(p, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
		return fmt.Errorf("checking proof of entry %d: %w", index, err)
	}
	return nil
}
