// Package target turns what a scan request names into files to inspect:
// directories, single files, a container's root, the layers of an image,
// standard input. Walks follow no symbolic link, open nothing but regular
// files, and come in one deterministic order, so that a scan can be resumed.
package target

import (
	"context"
	"os"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/threat"
)

// Source is one target of a scan.
type Source interface {
	// Walk yields the items that come after a position, "" for all. An error of
	// yield stops the walk and is returned; what cannot be read is an item with
	// a Problem, not an error.
	Walk(ctx context.Context, after string, yield func(Item) error) error
	// Count reports how many files there are, a first estimate soon and in
	// steps, through add.
	Count(ctx context.Context, add func(files int64)) error
}

// Item is one file, or one thing that could not be inspected. Who got it calls
// Release when done.
type Item struct {
	// Position orders the items of a source; Walk resumes after it.
	Position string
	// Location of the file; its Path is for display, with bytes that are not
	// UTF-8 escaped.
	Location threat.Location
	// Key of the inode as the walk saw it; zero if it is known only after Open.
	Key event.FileKey
	// Size in bytes as the walk saw it.
	Size int64
	// Hash is what the content is said to have; zero if nothing is said.
	Hash threat.Hash
	// Problem says why there is nothing to open; nil for files.
	Problem *threat.Reason
	// Limits of the inspection; zero fields mean the defaults.
	Limits engine.Limits
	// Volatile says that the opened file is a temporary copy.
	Volatile bool
	// Note asks to put the location into the content index even if the inode
	// is known: containers of one image share inodes.
	Note bool

	dir  *dir
	name string
	open func(context.Context) (*os.File, error)
}

// Skipped says that the item is a FIFO, a socket, a device or a file system of
// the kernel: nothing that could be inspected.
func (i *Item) Skipped() bool {
	return i.Problem != nil && i.Problem.Code == threat.ReasonNotRegular
}

// Release gives up what the item holds; it may be called only once.
func (i *Item) Release() {
	if i.dir != nil {
		i.dir.release()
		i.dir = nil
	}
}

// Problem is an error of opening an item, with the reason for the user.
type Problem struct {
	Reason threat.Reason
	Err    error
}

// Error implements error.
func (p *Problem) Error() string { return p.Reason.Text }

// Unwrap gives the cause.
func (p *Problem) Unwrap() error { return p.Err }
