// Package signature carries signatures from whoever writes them to the engines
// of every node: import, signed publication, verified transport, compilation,
// and the self-test that a bundle must pass before it protects anything.
//
// A source bundle is a manifest and the content-addressed blobs it names: YARA
// sources and lists of digests. The manager's Repository publishes it as the
// single target of a TUF repository (The Update Framework 1.0): TUF protects the
// manifest against change, rollback, freezing and mixing, the manifest's digests
// protect the blobs. A node's Client verifies, a Store compiles, because
// compiled rules are never accepted from elsewhere.
package signature

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"time"
	"unicode/utf8"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/threat"
)

// Kind of a source.
type Kind string

// The kinds.
const (
	KindYARA   Kind = "yara"   // a file of YARA rules
	KindHashes Kind = "hashes" // digests in hashlist.Canonical form
)

// Limits of a bundle.
const (
	MaxSources    = 50_000
	MaxYARASource = 32 << 20 // bytes of one file of rules
	MaxHashSource = 16 << 30 // bytes of one canonical list
	maxManifest   = 64 << 20 // bytes of the manifest itself
)

// Source is one file of a bundle.
type Source struct {
	// Name identifies the source in its bundle, e.g. "linux/webshell.yar".
	Name string `json:"name"`
	Kind Kind   `json:"kind"`
	// Count of digests and their algorithms; unset for rules.
	Count      int64               `json:"count,omitempty"`
	Algorithms []hashset.Algorithm `json:"algorithms,omitempty"`
	// SHA256 and Size (bytes) of the content.
	SHA256 threat.Hash `json:"sha256"`
	Size   int64       `json:"size"`
	// Blob is the SHA-256 of the content as it is stored and sent, compressed
	// by Zstandard; BlobSize its length in bytes.
	Blob     threat.Hash `json:"blob"`
	BlobSize int64       `json:"blob_size"`
}

// Manifest describes a bundle.
type Manifest struct {
	Epoch      threat.Epoch `json:"epoch"`
	Created    time.Time    `json:"created"`
	By         string       `json:"by"`
	Comment    string       `json:"comment,omitempty"`
	RollbackOf threat.Epoch `json:"rollback_of,omitempty"`
	Rules      int          `json:"rules"`
	Hashes     int64        `json:"hashes"`
	Sources    []Source     `json:"sources"`
}

// Bundle returns the manifest as people see it.
func (m *Manifest) Bundle(active bool) api.Bundle {
	return api.Bundle{
		Epoch: m.Epoch, Created: m.Created, By: m.By, Comment: m.Comment,
		Rules: m.Rules, Hashes: m.Hashes, Active: active, RollbackOf: m.RollbackOf,
	}
}

// ErrInvalid is wrapped by errors about manifests that no publisher makes.
var ErrInvalid = errors.New("invalid bundle")

// ParseManifest reads a manifest whose signature was verified and checks what
// the rest of the program relies on.
func ParseManifest(data []byte) (*Manifest, error) {
	if len(data) > maxManifest {
		return nil, fmt.Errorf("%w: the manifest has %d bytes", ErrInvalid, len(data))
	}
	var m Manifest
	d := json.NewDecoder(bytes.NewReader(data))
	if err := d.Decode(&m); err != nil {
		return nil, fmt.Errorf("%w: parsing the manifest: %w", ErrInvalid, err)
	}
	if err := m.validate(); err != nil {
		return nil, err
	}
	return &m, nil
}

func (m *Manifest) validate() error {
	if m.Epoch == 0 || len(m.Sources) > MaxSources {
		return fmt.Errorf("%w: epoch %d with %d sources", ErrInvalid, m.Epoch, len(m.Sources))
	}
	seen := map[string]bool{}
	for _, s := range m.Sources {
		if err := CheckName(s.Name); err != nil {
			return fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		if seen[s.Name] {
			return fmt.Errorf("%w: two sources are called %q", ErrInvalid, s.Name)
		}
		seen[s.Name] = true
		limit := int64(MaxHashSource)
		switch s.Kind {
		case KindYARA:
			limit = MaxYARASource
		case KindHashes:
		default:
			return fmt.Errorf("%w: source %q is of unknown kind %q", ErrInvalid, s.Name, s.Kind)
		}
		if s.Size < 0 || s.Size > limit || s.BlobSize < 0 || s.BlobSize > limit+limit/8+1024 {
			return fmt.Errorf("%w: source %q has an impossible size", ErrInvalid, s.Name)
		}
	}
	return nil
}

// CheckName says whether a name can identify a source: a clean relative path
// of UTF-8 without control characters, at most 255 bytes long.
func CheckName(name string) error {
	if name == "" || len(name) > 255 || !utf8.ValidString(name) || path.IsAbs(name) || path.Clean(name) != name ||
		name == "." || name == ".." || len(name) > 2 && name[:3] == "../" {
		return fmt.Errorf("%q cannot name a source", name)
	}
	for _, r := range name {
		if r < ' ' || r == 0x7f || r == '\\' {
			return fmt.Errorf("%q cannot name a source", name)
		}
	}
	return nil
}

// digestOf is a short way to name content.
func digestOf(data []byte) threat.Hash { return sha256.Sum256(data) }
