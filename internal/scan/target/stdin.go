package target

import (
	"context"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/threat"
)

// maxStdin bounds what is taken from standard input, in bytes.
const maxStdin = 4 << 30

// Stream is content that comes from a reader. It is copied to a temporary file
// without a name, because inspection needs random access.
type Stream struct {
	Reader io.Reader
	// Dir holds the temporary file; default os.TempDir().
	Dir string
	// Location of the item; its Path is the name shown.
	Location threat.Location
	// Max bytes taken; default 4 GiB. More is a Problem.
	Max int64
}

// Walk implements Source with a single item.
func (s *Stream) Walk(ctx context.Context, after string, yield func(Item) error) error {
	if after != "" {
		return nil
	}
	return yield(Item{Position: ".", Location: s.Location, Volatile: true, open: s.copy})
}

// Count implements Source.
func (s *Stream) Count(_ context.Context, add func(files int64)) error {
	add(1)
	return nil
}

func (s *Stream) copy(ctx context.Context) (*os.File, error) {
	f, err := tempFile(s.Dir)
	if err != nil {
		return nil, err
	}
	limit := s.Max
	if limit <= 0 {
		limit = maxStdin
	}
	n, err := io.Copy(f, io.LimitReader(readerFunc(func(b []byte) (int, error) {
		if err := context.Cause(ctx); err != nil {
			return 0, err
		}
		return s.Reader.Read(b)
	}), limit+1))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("copying input: %w", err)
	}
	if n > limit {
		f.Close()
		return nil, &Problem{Reason: threat.Reason{
			Code: threat.ReasonTooLarge, Text: fmt.Sprintf("There are more than %d bytes of input; it was not inspected.", limit),
		}}
	}
	return f, nil
}

type readerFunc func([]byte) (int, error)

// Read implements io.Reader.
func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// tempFile makes a file that never has a name.
func tempFile(dir string) (*os.File, error) {
	if dir == "" {
		dir = os.TempDir()
	}
	fd, err := openat(unix.AT_FDCWD, dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_EXCL|unix.O_CLOEXEC)
	if err == nil {
		return os.NewFile(uintptr(fd), dir+"/(temporary)"), nil
	}
	f, err := os.CreateTemp(dir, "lazaret-") // file systems without O_TMPFILE
	if err != nil {
		return nil, fmt.Errorf("making temporary file: %w", err)
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, fmt.Errorf("making temporary file: %w", err)
	}
	return f, nil
}
