package target

import (
	"context"
	"os"

	"github.com/lazaret/lazaret/internal/workload/image"
)

// ImageFiles opens images that are files on this host: OCI layouts, and tar
// files as `docker save` and `ctr image export` write them.
type ImageFiles struct {
	// TempDir holds layers that are copied out of archives; default os.TempDir.
	TempDir string
}

// Layers implements Images. What the image refers to but does not hold is a
// layer that cannot be opened: the scan reports it.
func (i ImageFiles) Layers(_ context.Context, path string) ([]Layer, func() error, error) {
	im, err := image.Open(path, image.Options{TempDir: i.TempDir})
	if err != nil {
		return nil, nil, err
	}
	var layers []Layer
	for _, l := range im.Layers() {
		layers = append(layers, Layer{
			Digest: l.String(), Size: l.Size,
			Open: func(context.Context) (*os.File, error) { return l.File() },
		})
	}
	for _, m := range im.Missing() {
		layers = append(layers, Layer{
			Digest: m.What,
			Open:   func(context.Context) (*os.File, error) { return nil, &Problem{Reason: m.Reason} },
		})
	}
	return layers, im.Close, nil
}
