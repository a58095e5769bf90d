package unpack

import (
	"bytes"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// TestZstdWindows: large windows are allowed up to a limit, and not kept.
func TestZstdWindows(t *testing.T) {
	t.Parallel()
	data := bytes.Repeat(program(), 2000) // 12 MB
	for window, want := range map[int][]string{
		1 << 20:   nil,
		64 << 20:  nil,
		256 << 20: {threat.ReasonTooLarge},
	} {
		var b bytes.Buffer
		w, err := zstd.NewWriter(&b, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
		require.NoError(t, err)
		for part := data; len(part) > 0; part = part[len(part)/2+1:] {
			_, err = w.Write(part[:len(part)/2+1])
			require.NoError(t, err)
			require.NoError(t, w.Flush())
		}
		require.NoError(t, w.Close())
		f := walkAll(t, b.Bytes(), engine.Limits{Ratio: 1 << 30})
		require.Equal(t, want, f.codes(), "window of %d bytes", window)
		if want == nil {
			f.has(t, contentName, data)
		}
	}
}
