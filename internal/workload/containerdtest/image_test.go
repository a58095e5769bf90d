package containerdtest

import (
	"archive/tar"
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestWriteImage(t *testing.T) {
	t.Parallel()
	layers := []Layer{
		{{Path: "a/b/c", Data: []byte("one"), Mode: 0o755}, {Path: "l", Link: "a"}},
		{{Path: "a/d", Data: []byte("two")}},
	}
	var first, second bytes.Buffer
	image, err := WriteImage(&first, "localhost/x/y:7", layers...)
	require.NoError(t, err)
	_, err = WriteImage(&second, "localhost/x/y:7", layers...)
	require.NoError(t, err)
	require.Equal(t, first.Bytes(), second.Bytes(), "the same content gives the same digests")
	require.Len(t, image.Layers, 2)

	names := map[string][]byte{}
	for r := tar.NewReader(&first); ; {
		h, err := r.Next()
		if err == io.EOF {
			break
		}
		require.NoError(t, err)
		names[h.Name], err = io.ReadAll(r)
		require.NoError(t, err)
	}
	for _, l := range append(image.Layers, image.Digest) {
		require.Equal(t, l, digest(names[blobPath(l)]))
	}
	require.Contains(t, string(names["index.json"]), image.Digest)
	require.Contains(t, string(names["manifest.json"]), "localhost/x/y:7")
}

func TestStartRefuses(t *testing.T) {
	t.Parallel()
	_, err := Start(t.Context(), Config{Dir: "relative"})
	require.Error(t, err)
}
