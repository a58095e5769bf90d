// Package password hashes and checks passwords with argon2id (RFC 9106).
package password

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
)

// Parameters of new hashes: RFC 9106's second recommended option, 64 MiB and
// three passes, with one lane.
const (
	memory  = 64 << 10 // KiB
	passes  = 3
	lanes   = 1
	saltLen = 16
	keyLen  = 32
)

// Length of passwords in characters (NIST SP 800-63B: length matters, no
// composition rules) and the bound in bytes.
const (
	MinLength = 12
	MaxBytes  = 1024
)

// ErrWrong says the password is not the one that was hashed.
var ErrWrong = errors.New("wrong password")

// Hasher hashes one password at a time: each needs 64 MiB.
type Hasher struct{ slot chan struct{} }

// New returns a hasher.
func New() *Hasher { return &Hasher{slot: make(chan struct{}, 1)} }

// Check says what is wrong with a new password, nil if nothing is.
func Check(name, password string) error {
	switch {
	case !utf8.ValidString(password):
		return errors.New("the password is not valid UTF-8")
	case utf8.RuneCountInString(password) < MinLength:
		return fmt.Errorf("the password is shorter than %d characters", MinLength)
	case len(password) > MaxBytes:
		return fmt.Errorf("the password is longer than %d bytes", MaxBytes)
	case strings.EqualFold(password, name):
		return errors.New("the password is the name")
	}
	return nil
}

func (h *Hasher) derive(ctx context.Context, password string, salt []byte, t, m uint32, p uint8) ([]byte, error) {
	select {
	case h.slot <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.slot }()
	return argon2.IDKey([]byte(password), salt, t, m, p, keyLen), nil
}

// Hash returns the encoded hash in the usual "$argon2id$…" form.
func (h *Hasher) Hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltLen)
	rand.Read(salt) //nolint:errcheck // never fails, see its documentation
	key, err := h.derive(ctx, password, salt, passes, memory, lanes)
	if err != nil {
		return "", fmt.Errorf("hashing password: %w", err)
	}
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, memory, passes, lanes,
		b64.EncodeToString(salt), b64.EncodeToString(key)), nil
}

// Verify compares a password with an encoded hash: nil or ErrWrong; any other
// error means it could not be checked. An empty encoded hash (no such user)
// takes as long as a real one and is always wrong.
func (h *Hasher) Verify(ctx context.Context, encoded, password string) error {
	if len(password) > MaxBytes {
		return ErrWrong
	}
	if encoded == "" {
		salt := sha256.Sum256([]byte(password))
		if _, err := h.derive(ctx, password, salt[:saltLen], passes, memory, lanes); err != nil {
			return fmt.Errorf("checking password: %w", err)
		}
		return ErrWrong
	}
	var version int
	var m, t uint32
	var p uint8
	parts := strings.Split(encoded, "$")
	if len(parts) != 6 || parts[1] != "argon2id" {
		return errors.New("checking password: the stored hash is damaged")
	}
	_, err1 := fmt.Sscanf(parts[2], "v=%d", &version)
	_, err2 := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &m, &t, &p)
	salt, err3 := base64.RawStdEncoding.DecodeString(parts[4])
	want, err4 := base64.RawStdEncoding.DecodeString(parts[5])
	if err := errors.Join(err1, err2, err3, err4); err != nil || version != argon2.Version ||
		m > 1<<20 || t == 0 || t > 16 || p == 0 || len(want) != keyLen {
		return errors.New("checking password: the stored hash is damaged")
	}
	got, err := h.derive(ctx, password, salt, t, m, p)
	if err != nil {
		return fmt.Errorf("checking password: %w", err)
	}
	if subtle.ConstantTimeCompare(got, want) != 1 {
		return ErrWrong
	}
	return nil
}
