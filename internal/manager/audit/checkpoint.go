package audit

import (
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// maxCheckpoint bounds a checkpoint file or argument.
const maxCheckpoint = 4 << 10

// sign makes a checkpoint of tree: three lines of text and the signature.
func sign(origin string, tree tlog.Tree, s note.Signer) ([]byte, error) {
	text := fmt.Sprintf("%s\n%d\n%s\n", origin, tree.N, tree.Hash)
	b, err := note.Sign(&note.Note{Text: text}, s)
	if err != nil {
		return nil, fmt.Errorf("signing checkpoint: %w", err)
	}
	return b, nil
}

// ParseCheckpoint verifies a checkpoint's signature and returns the tree it
// speaks of. The verifier's name is the log's origin.
func ParseCheckpoint(b []byte, v note.Verifier) (tlog.Tree, error) {
	if len(b) > maxCheckpoint {
		return tlog.Tree{}, fmt.Errorf("reading checkpoint: longer than %d bytes", maxCheckpoint)
	}
	n, err := note.Open(b, note.VerifierList(v))
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("verifying checkpoint's signature: %w", err)
	}
	lines := strings.Split(n.Text, "\n")
	if len(lines) < 4 || lines[0] != v.Name() {
		return tlog.Tree{}, fmt.Errorf("reading checkpoint: it is not one of %s", v.Name())
	}
	size, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || size < 0 || strconv.FormatInt(size, 10) != lines[1] {
		return tlog.Tree{}, fmt.Errorf("reading checkpoint: %q is not a size", lines[1])
	}
	h, err := base64.StdEncoding.DecodeString(lines[2])
	if err != nil || len(h) != tlog.HashSize {
		return tlog.Tree{}, fmt.Errorf("reading checkpoint: %q is not a hash", lines[2])
	}
	return tlog.Tree{N: size, Hash: tlog.Hash(h)}, nil
}
