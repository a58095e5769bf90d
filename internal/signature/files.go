package signature

import (
	"fmt"
	"io"
	"io/fs"
	"iter"
)

// File is one file to import.
type File struct {
	Name    string    // clean relative path, becomes the source's name
	Content io.Reader // valid until the next file
}

// FromFS yields the regular files of a tree, or of the single file root.
func FromFS(fsys fs.FS, root string) iter.Seq2[File, error] {
	return func(yield func(File, error) bool) {
		err := fs.WalkDir(fsys, root, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			f, err := fsys.Open(name)
			if err != nil {
				return err
			}
			more := yield(File{Name: name, Content: f}, nil)
			if err := f.Close(); err != nil {
				return err
			}
			if !more {
				return fs.SkipAll
			}
			return nil
		})
		if err != nil {
			yield(File{}, fmt.Errorf("reading signature sources: %w", err))
		}
	}
}
