package worker

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sort"
	"sync"

	"github.com/lazaret/lazaret/internal/threat"
)

// manifestName is the file that names the others of a compiled bundle.
const manifestName = "manifest.json"

// loadable are the files a worker understands, of the same names as
// architecture.md.
var loadable = map[string]bool{
	"other.yarc": true, "elf.yarc": true, "pe.yarc": true,
	"sha256.set": true, "sha1.set": true, "md5.set": true,
}

// bundle is a compiled bundle that is open. Workers of one bundle share the
// descriptors, so that replaced files on disk do not matter.
type bundle struct {
	dir   string
	epoch threat.Epoch
	names []string
	files []*os.File
	once  sync.Once
}

// openBundle opens the signature files that dir's manifest names. The caller
// vouches for their content.
func openBundle(dir string, epoch threat.Epoch) (*bundle, error) {
	f, err := os.Open(filepath.Join(dir, manifestName))
	if err != nil {
		return nil, fmt.Errorf("opening compiled signatures: %w", err)
	}
	defer f.Close()
	var manifest struct {
		Files map[string]string `json:"files"`
	}
	if err := json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&manifest); err != nil {
		return nil, fmt.Errorf("reading %s: %w", f.Name(), err)
	}
	b := &bundle{dir: dir, epoch: epoch}
	for name := range manifest.Files {
		if loadable[name] {
			b.names = append(b.names, name)
		}
	}
	sort.Strings(b.names)
	for _, name := range b.names {
		f, err := os.Open(filepath.Join(dir, name))
		if err != nil {
			b.close()
			return nil, fmt.Errorf("opening compiled signatures: %w", err)
		}
		b.files = append(b.files, f)
	}
	return b, nil
}

func (b *bundle) close() {
	b.once.Do(func() {
		for _, f := range b.files {
			f.Close()
		}
	})
}
