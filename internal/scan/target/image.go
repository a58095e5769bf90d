package target

import (
	"context"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// Layer is one layer of an image.
type Layer struct {
	// Digest as in the manifest, "sha256:…".
	Digest string
	// Size of the blob in bytes.
	Size int64
	// Open gives the blob as a file of its own; the caller closes it.
	Open func(ctx context.Context) (*os.File, error)
}

// LayerLimits are the limits for image layers: whole file systems in one
// archive, so there may be more and more time than in a file.
func LayerLimits() engine.Limits {
	l := engine.DefaultLimits()
	l.Members = 200_000
	l.Total = 8 << 30
	l.Time = 10 * time.Minute
	return l
}

// Image is an image's layers as files. Each layer is one object, named by its
// digest: the verdict cache sees to it that it is inspected once.
type Image struct {
	// Name shown, usually the path.
	Name   string
	Layers []Layer
	Limits engine.Limits
}

// Walk implements Source; positions are the layers' numbers.
func (m *Image) Walk(ctx context.Context, after string, yield func(Item) error) error {
	next := 0
	if after != "" {
		n, err := strconv.Atoi(after)
		if err != nil || n < 0 {
			n = -1 // not a position of ours: from the start
		}
		next = n + 1
	}
	for ; next < len(m.Layers); next++ {
		if err := context.Cause(ctx); err != nil {
			return err
		}
		l := m.Layers[next]
		digest, _ := strings.CutPrefix(l.Digest, "sha256:")
		claimed, _ := threat.ParseHash(digest) // zero for other digests
		err := yield(Item{
			Hash:     claimed,
			Position: strconv.Itoa(next),
			Location: threat.Location{Path: threat.Printable(m.Name) + "!/" + l.Digest, Layer: l.Digest, Image: threat.Printable(m.Name)},
			Size:     l.Size, Limits: m.Limits, Volatile: true, open: l.Open,
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// Count implements Source.
func (m *Image) Count(_ context.Context, add func(files int64)) error {
	add(int64(len(m.Layers)))
	return nil
}
