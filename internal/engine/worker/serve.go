package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/threat"
)

// Pipeline inspects one file and emits it and its members.
type Pipeline interface {
	Inspect(ctx context.Context, r io.ReaderAt, size int64, limits engine.Limits, emit func(threat.Object) error) error
}

// Loaded is a pipeline with its signatures in memory.
type Loaded struct {
	Pipeline Pipeline
	Ready    Readiness
	// Idle is called when nothing came for a while and after large objects, to
	// give memory back.
	Idle func()
}

// Serve is the life of a worker process: it receives signatures, answers that
// it is ready and inspects files until the socket ends. It must be called
// after the process was locked down. load gets the signature files by name and
// owns them.
func Serve(socket *os.File, load func(files map[string]*os.File) (*Loaded, error)) error {
	// The socket is not closed on the way out: of a panic the pool should see
	// the end of the process, not of the socket.
	defer runtime.KeepAlive(socket)
	s := &server{fd: int(socket.Fd()), in: make([]byte, maxMessage), oob: make([]byte, unix.CmsgSpace(4*maxDescriptors))}
	files, err := s.loading()
	if err != nil {
		return err
	}
	loaded, err := load(files)
	if err != nil {
		text := append([]byte{msgFailed}, err.Error()...)
		return errors.Join(err, send(s.fd, text[:min(len(text), maxMessage)]))
	}
	ready, err := json.Marshal(loaded.Ready)
	if err != nil {
		return fmt.Errorf("describing the worker: %w", err)
	}
	if err := send(s.fd, append([]byte{msgReady}, ready...)); err != nil {
		return fmt.Errorf("answering the pool: %w", err)
	}
	return s.run(loaded)
}

type server struct {
	fd      int
	in, oob []byte
	out     []byte
	largest int64 // object of the file under inspection, in bytes
	said    int   // bytes of objects in its answer
}

// largeObject is the size in bytes from which on the memory an object took is
// given back at once: the scan took much longer than that does.
const largeObject = 16 << 20

func (s *server) loading() (map[string]*os.File, error) {
	n, fds, err := receive(s.fd, s.in, s.oob)
	for errors.Is(err, unix.EAGAIN) {
		n, fds, err = receive(s.fd, s.in, s.oob)
	}
	if err != nil {
		return nil, fmt.Errorf("receiving the signatures: %w", err)
	}
	var l loading
	if n < 1 || s.in[0] != msgLoad {
		return nil, fmt.Errorf("receiving the signatures: %w", errMalformed)
	}
	if err := json.Unmarshal(s.in[1:n], &l); err != nil {
		return nil, fmt.Errorf("receiving the signatures: %w", err)
	}
	if len(l.Files) != len(fds) {
		return nil, fmt.Errorf("receiving the signatures: %d names with %d descriptors", len(l.Files), len(fds))
	}
	files := map[string]*os.File{}
	for i, name := range l.Files {
		files[name] = os.NewFile(uintptr(fds[i]), name)
	}
	return files, nil
}

func (s *server) run(loaded *Loaded) error {
	busy := true // since the last time memory was given back
	for {
		n, fds, err := receive(s.fd, s.in, s.oob)
		if errors.Is(err, unix.EAGAIN) {
			if busy && loaded.Idle != nil {
				loaded.Idle()
			}
			busy = false
			continue
		}
		if err != nil {
			return fmt.Errorf("receiving a request: %w", err)
		}
		if n == 0 {
			return nil
		}
		id, limits, err := parseRequest(s.in[:n])
		if err != nil || len(fds) != 1 {
			return fmt.Errorf("receiving a request: %w", errMalformed)
		}
		busy, s.largest, s.said = true, 0, 0
		if err := s.inspect(loaded.Pipeline, id, fds[0], limits); err != nil {
			return err
		}
		if s.largest >= largeObject && loaded.Idle != nil {
			loaded.Idle()
		}
	}
}

// inspect answers one request and closes the file. The error is the socket's.
func (s *server) inspect(p Pipeline, id uint64, fd int, limits engine.Limits) error {
	start := time.Now()
	s.out = beginAnswer(s.out[:0], id, "")
	var lost error // of the socket: the pool is gone
	emit := func(o threat.Object) error {
		s.largest = max(s.largest, o.Size)
		if s.said > maxDetail {
			if o.Verdict == threat.Clean && o.Member != "" && len(o.Detections) == 0 {
				return nil // it was inspected, only its name is not told
			}
			o = *reduce(&o, 1)
		}
		encoded, err := encode(&o)
		if err != nil {
			return err
		}
		s.said += len(encoded)
		if len(s.out)+4+len(encoded) > maxMessage {
			if lost = send(s.fd, s.out); lost != nil {
				return lost
			}
			s.out = beginAnswer(s.out[:0], id, "")
		}
		s.out = appendObject(s.out, encoded)
		return nil
	}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	switch {
	case err != nil:
		err = fmt.Errorf("reading the file's size: %w", err)
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		err = errNotRegular
	default:
		// The pipeline keeps the time limit itself, and the pool behind it.
		err = p.Inspect(context.Background(), descriptor(fd), st.Size, limits, emit)
	}
	// Before the answer: who gets it may want to unmount the file system.
	_ = unix.Close(fd)
	if lost == nil && err != nil {
		// Objects may be waiting; the fault goes into a message of its own.
		if lost = send(s.fd, s.out); lost == nil {
			s.out = beginAnswer(s.out[:0], id, err.Error())
		}
	}
	if lost == nil {
		finishAnswer(s.out, time.Since(start))
		lost = send(s.fd, s.out)
	}
	if lost != nil {
		return fmt.Errorf("answering the pool: %w", lost)
	}
	return nil
}

var errNotRegular = errors.New("not a regular file")

// maxDetail is how many bytes of objects an answer has in full. The members of
// nested archives with long names would fill hundreds of megabytes of the
// memory of whoever reads it.
const maxDetail = 32 << 20

// maxEncoded leaves room for the header of a message.
const maxEncoded = maxMessage - answerHeader - 4 - 1<<10

// encode returns the object's JSON, reduced until it fits into a message: the
// verdict always arrives, texts may not.
func encode(o *threat.Object) ([]byte, error) {
	b, err := json.Marshal(o)
	for _, size := range []int{32, 4} {
		if err != nil || len(b) <= maxEncoded {
			break
		}
		b, err = json.Marshal(reduce(o, size))
	}
	if err == nil && len(b) > maxEncoded {
		err = fmt.Errorf("an object needs %d bytes in a message", len(b))
	}
	return b, err
}

// reduce keeps at most n detections and reasons, and 64 × n bytes of the name.
func reduce(o *threat.Object, n int) *threat.Object {
	cut := func(s string, n int) string { return s[:min(len(s), n)] }
	r := *o
	r.Type, r.Member = cut(r.Type, 64), cut(r.Member, 64*n)
	r.Detections = append([]threat.Detection(nil), r.Detections[:min(len(r.Detections), n)]...)
	for i := range r.Detections {
		d := &r.Detections[i]
		*d = threat.Detection{Signature: cut(d.Signature, 128), Engine: cut(d.Engine, 16),
			Severity: threat.Severity(cut(string(d.Severity), 16)), Technique: cut(d.Technique, 16)}
	}
	r.Reasons = append([]threat.Reason(nil), r.Reasons[:min(len(r.Reasons), n)]...)
	for i := range r.Reasons {
		r.Reasons[i] = threat.Reason{Code: cut(r.Reasons[i].Code, 32), Text: cut(r.Reasons[i].Text, 128)}
	}
	return &r
}
