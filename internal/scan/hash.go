package scan

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/lazaret/lazaret/internal/threat"
)

// hashBuffer is read at a time: large enough that the calls cost nothing,
// small enough for the second-level cache.
const hashBuffer = 256 << 10

const (
	// hashFirst is up to which size a file is hashed before the engine is asked,
	// which takes up to a second. A larger one, perhaps one huge hole, must not
	// keep the engine from looking at its beginning.
	hashFirst = 1 << 30
	// hashFree is up to which size hashing takes no slot.
	hashFree = 8 << 20
)

// hasher computes SHA-256 with reused buffers. Hashing looks at no structure,
// so it is safe outside the sandbox.
type hasher struct{ buffers sync.Pool }

// errGrown says that there was more or less to read than the key's size.
var errGrown = errors.New("file changed its size while it was read")

// sum hashes the file from offset 0, which must have size bytes.
func (h *hasher) sum(ctx context.Context, f *os.File, size int64) (threat.Hash, error) {
	buf, ok := h.buffers.Get().(*[]byte)
	if !ok {
		b := make([]byte, hashBuffer)
		buf = &b
	}
	defer h.buffers.Put(buf)
	d := sha256.New()
	var sum threat.Hash
	for off := int64(0); ; {
		if err := context.Cause(ctx); err != nil {
			return sum, err
		}
		n, err := f.ReadAt(*buf, off)
		d.Write((*buf)[:n])
		off += int64(n)
		if off > size {
			return sum, errGrown // never read on behind one who keeps writing
		}
		if errors.Is(err, io.EOF) {
			if off != size {
				return sum, errGrown
			}
			d.Sum(sum[:0])
			return sum, nil
		}
		if err != nil {
			return sum, fmt.Errorf("reading file: %w", err)
		}
	}
}
