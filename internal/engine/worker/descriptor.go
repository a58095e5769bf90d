package worker

import (
	"io"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// descriptor reads a file with pread and nothing else.
type descriptor int

// ReadAt implements io.ReaderAt.
func (d descriptor) ReadAt(b []byte, offset int64) (n int, err error) {
	for n < len(b) {
		m, err := unix.Pread(int(d), b[n:], offset+int64(n))
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return n, os.NewSyscallError("pread", err)
		case m == 0:
			return n, io.EOF
		}
		n += m
	}
	return n, nil
}

// Stat lets the pipeline notice that the file is written to meanwhile.
func (d descriptor) Stat() (fs.FileInfo, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(d), &st); err != nil {
		return nil, os.NewSyscallError("fstat", err)
	}
	return info{st}, nil
}

// info is what fstat says. Its time is that of the last change, which user
// space cannot set.
type info struct{ st unix.Stat_t }

func (i info) Name() string       { return "" }
func (i info) Size() int64        { return i.st.Size }
func (i info) Mode() fs.FileMode  { return fs.FileMode(i.st.Mode & 0o777) }
func (i info) ModTime() time.Time { return time.Unix(i.st.Ctim.Unix()) }
func (i info) IsDir() bool        { return false }
func (i info) Sys() any           { return nil }
