package zipaes

import (
	"archive/zip"
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// decrypt reads a member as the specification says, apart from the writer's
// code for headers and order.
func decrypt(f *zip.File, password string) ([]byte, error) {
	if f.Method != method || f.Flags&flagEncrypted == 0 || f.CRC32 != 0 {
		return nil, errors.New("not an AE-2 member")
	}
	i := bytes.Index(f.Extra, []byte{0x01, 0x99, 7, 0})
	if i < 0 || !bytes.Equal(f.Extra[i+4:i+11], []byte{2, 0, 'A', 'E', 3, 0, 0}) {
		return nil, errors.New("no AES extra field")
	}
	raw, err := f.OpenRaw()
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(raw)
	if err != nil {
		return nil, err
	}
	if len(b) < overhead {
		return nil, errors.New("too short")
	}
	k, err := derive(password, b[:saltSize])
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(k.verifier[:], b[saltSize:saltSize+verifierSize]) {
		return nil, errors.New("wrong password")
	}
	text, mac := b[saltSize+verifierSize:len(b)-macSize], b[len(b)-macSize:]
	k.mac.Write(text)
	if !hmac.Equal(k.mac.Sum(nil)[:macSize], mac) {
		return nil, errors.New("wrong authentication code")
	}
	for at := 0; at < len(text); at += 16 {
		var in, pad [16]byte
		binary.LittleEndian.PutUint32(in[:], uint32(at/16+1))
		k.block.Encrypt(pad[:], in[:])
		for j := at; j < min(at+16, len(text)); j++ {
			text[j] ^= pad[j-at]
		}
	}
	return text, nil
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	when := time.Date(2026, 3, 4, 5, 6, 8, 0, time.UTC)
	contents := map[string][]byte{"empty": {}, "one": {7}, "ünï/kod": []byte("hello"), "big": make([]byte, 200_001)}
	rand.Read(contents["big"])
	var b bytes.Buffer
	w, err := NewWriter(&b, "infected")
	require.NoError(t, err)
	for name, c := range contents {
		require.NoError(t, w.Add(name, when, int64(len(c)), bytes.NewReader(c)))
	}
	require.NoError(t, w.Close())

	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	require.NoError(t, err)
	require.Len(t, r.File, len(contents))
	for _, f := range r.File {
		got, err := decrypt(f, "infected")
		require.NoError(t, err)
		require.True(t, bytes.Equal(contents[f.Name], got), f.Name)
		require.True(t, when.Equal(f.Modified), "%s", f.Modified)
		_, err = decrypt(f, "Infected")
		require.Error(t, err)
	}
	require.NotContains(t, b.String(), "hello")
}

func TestWrongSizes(t *testing.T) {
	t.Parallel()
	w, err := NewWriter(io.Discard, "x")
	require.NoError(t, err)
	require.ErrorContains(t, w.Add("long", time.Now(), 2, strings.NewReader("abc")), "longer than 2 bytes")
	require.ErrorIs(t, w.Add("short", time.Now(), 4, strings.NewReader("abc")), io.ErrUnexpectedEOF)
	require.Error(t, w.Add("negative", time.Now(), -1, strings.NewReader("")))
	_, err = NewWriter(io.Discard, "")
	require.ErrorContains(t, err, "password is empty")
}
