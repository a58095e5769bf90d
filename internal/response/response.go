// Package response carries decisions out: it takes files into the quarantine
// vault and gives them back, removes files inside running containers, ends
// processes, and holds mass actions back until a person agrees. Each change is
// written ahead in the vault's database, so that a crash at any moment loses
// neither a file nor a record.
package response

import (
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reasons for which a response is refused or fails. The file stays denied by
// policy whatever happens here.
var (
	// ErrGone: nothing is at that path any more.
	ErrGone = errors.New("the file is no longer there")
	// ErrReplaced: another file is at that path now; it was left alone.
	ErrReplaced = errors.New("another file took the file's place")
	// ErrChanged: the content is not what was inspected.
	ErrChanged = errors.New("the content changed since it was inspected")
	// ErrImageLayer: the file belongs to an image that other containers use.
	ErrImageLayer = errors.New("image infected: rebuild the image")
	// ErrReadOnly: the file system or mount is read-only.
	ErrReadOnly = errors.New("the file system is read-only")
	// ErrImmutable: the file or its directory has the immutable or append-only
	// attribute.
	ErrImmutable = errors.New("the file or its directory is immutable: clear the attribute with chattr -i -a")
	// ErrBusy: the file is in use as a mount point or by the kernel.
	ErrBusy = errors.New("the file is busy")
	// ErrNotRegular: FIFOs, sockets, devices and directories are never taken.
	ErrNotRegular = errors.New("not a regular file")
	// ErrSymlink: the path leads through a symbolic link.
	ErrSymlink = errors.New("the path leads through a symbolic link")
	// ErrNoSpace: the disk is full or a quota is reached.
	ErrNoSpace = errors.New("no space left")
	// ErrNoItem: there is no such quarantine item.
	ErrNoItem = errors.New("no such quarantine item")
	// ErrState: the item is in a state that does not permit the operation.
	ErrState = errors.New("the quarantine item does not permit this")
	// ErrStillMalicious: what should be restored is still a threat and nobody
	// allow-listed it.
	ErrStillMalicious = errors.New("the file is still a threat: allow-list it to restore it")
	// ErrNotInspected: what should be restored or taken was not inspected, so
	// that nobody knows what it is.
	ErrNotInspected = errors.New("the file was not inspected")
)

// classify turns the errors of file system calls into the package's own.
func classify(err error) error {
	var as error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ESRCH), errors.Is(err, unix.ESTALE):
		as = ErrGone
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EXDEV):
		as = ErrSymlink
	case errors.Is(err, unix.EROFS):
		as = ErrReadOnly
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.ETXTBSY):
		as = ErrBusy
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EFBIG):
		as = ErrNoSpace
	default:
		return err
	}
	if errors.Is(err, as) {
		return err
	}
	return fmt.Errorf("%w: %w", as, err)
}

// retry repeats a system call that a signal interrupted.
func retry(call func() error) error {
	for {
		if err := call(); !errors.Is(err, syscall.EINTR) {
			return err
		}
	}
}
