package signature

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	sigstore "github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"
)

// How long signatures are valid. Root, snapshot and targets are renewed when a
// third is left, the timestamp daily; a repository nobody renews is refused by
// clients after a week.
const (
	rootLife      = 10 * 365 * 24 * time.Hour
	targetsLife   = 90 * 24 * time.Hour
	snapshotLife  = 90 * 24 * time.Hour
	timestampLife = 7 * 24 * time.Hour
	timestampUse  = 24 * time.Hour
)

var roleNames = []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP}

// roles holds the private key of every role.
type roles map[string]ed25519.PrivateKey

// loadRoles reads the keys, making those that are missing when create is set,
// as on the first start.
func loadRoles(dir string, create bool, step stepFunc) (roles, error) {
	keys := roles{}
	for _, role := range roleNames {
		path := filepath.Join(dir, role+".key")
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) && create {
			data, err = newKey()
			if err == nil {
				err = writeFile(path, data, step)
			}
		}
		if err != nil {
			return nil, fmt.Errorf("loading the %s key: %w", role, err)
		}
		if keys[role], err = parseKey(data); err != nil {
			return nil, fmt.Errorf("loading the %s key: %w", role, err)
		}
	}
	return keys, nil
}

func newKey() ([]byte, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

func parseKey(data []byte) (ed25519.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("the file is not PEM")
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	ed, ok := key.(ed25519.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("the key is a %T, not ed25519", key)
	}
	return ed, nil
}

// sign signs a role's metadata and returns it as bytes.
func sign[T metadata.Roles](keys roles, role string, m *metadata.Metadata[T]) ([]byte, error) {
	signer, err := sigstore.LoadSigner(keys[role], crypto.Hash(0))
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", role, err)
	}
	m.ClearSignatures()
	if _, err := m.Sign(signer); err != nil {
		return nil, fmt.Errorf("signing %s: %w", role, err)
	}
	data, err := m.ToBytes(false)
	if err != nil {
		return nil, fmt.Errorf("signing %s: %w", role, err)
	}
	return data, nil
}

// newRoot makes the first root metadata, which names the keys of all roles.
func newRoot(keys roles, now time.Time) (*metadata.Metadata[metadata.RootType], error) {
	root := metadata.Root(now.Add(rootLife))
	root.Signed.ConsistentSnapshot = true
	for _, role := range roleNames {
		key, err := metadata.KeyFromPublicKey(keys[role].Public())
		if err != nil {
			return nil, fmt.Errorf("making the root: %w", err)
		}
		if err := root.Signed.AddKey(key, role); err != nil {
			return nil, fmt.Errorf("making the root: %w", err)
		}
	}
	return root, nil
}

// check says whether the keys are those that the root names: with others,
// clients would refuse everything we sign.
func (k roles) check(root *metadata.Metadata[metadata.RootType]) error {
	for _, role := range roleNames {
		key, err := metadata.KeyFromPublicKey(k[role].Public())
		if err != nil {
			return fmt.Errorf("loading the %s key: %w", role, err)
		}
		id, err := key.ID()
		if err != nil {
			return fmt.Errorf("loading the %s key: %w", role, err)
		}
		if r := root.Signed.Roles[role]; r == nil || !slices.Contains(r.KeyIDs, id) {
			return fmt.Errorf("loading the %s key: it is not the one in the root metadata", role)
		}
	}
	return nil
}

// due reports whether metadata that expires at the given time must be renewed.
func due(expires, now time.Time, life time.Duration) bool {
	return expires.Sub(now) < life/3
}
