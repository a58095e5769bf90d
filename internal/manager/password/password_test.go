package password

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestHashAndVerify(t *testing.T) {
	t.Parallel()
	h := New()
	enc, err := h.Hash(t.Context(), "correct horse battery")
	require.NoError(t, err)
	require.True(t, strings.HasPrefix(enc, "$argon2id$v=19$m=65536,t=3,p=1$"), enc)
	require.NoError(t, h.Verify(t.Context(), enc, "correct horse battery"))
	require.ErrorIs(t, h.Verify(t.Context(), enc, "correct horse batterY"), ErrWrong)
	require.ErrorIs(t, h.Verify(t.Context(), "", "anything at all"), ErrWrong)
	require.ErrorIs(t, h.Verify(t.Context(), enc, strings.Repeat("x", MaxBytes+1)), ErrWrong)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h.slot <- struct{}{} // somebody else hashes
	require.ErrorIs(t, h.Verify(ctx, enc, "x"), context.Canceled)
}

func TestDamagedHashIsNoMatch(t *testing.T) {
	t.Parallel()
	for _, enc := range []string{
		"x", "$argon2i$v=19$m=65536,t=3,p=1$AAAA$AAAA", "$argon2id$v=19$m=65536,t=3,p=1$AAAA$AAAA",
		"$argon2id$v=19$m=4294967295,t=3,p=1$AAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", "$argon2id$v=19$m=1,t=0,p=0$$",
	} {
		err := New().Verify(t.Context(), enc, "x")
		require.Error(t, err, enc)
		require.NotErrorIs(t, err, ErrWrong, enc)
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	require.NoError(t, Check("anna", "twelve chars"))
	require.Error(t, Check("anna", "eleven char"))
	require.Error(t, Check("administrator", "Administrator"))
	require.Error(t, Check("anna", strings.Repeat("x", MaxBytes+1)))
	require.Error(t, Check("anna", "twelve chars\xff"))
}
