package worker

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/sandbox"
	"github.com/lazaret/lazaret/internal/threat"
)

// TestMain lets the test binary be the engine program: the processes, the
// socket, the sandbox and the protocol are real, what it finds is not.
func TestMain(m *testing.M) {
	modes := map[string]func() error{
		"fake-worker":  fakeWorker,
		"fake-liar":    fakeLiar,
		"fake-compile": fakeCompile,
		"fake-dead":    func() error { return errors.New("I cannot start") },
		"fake-parent":  fakeParent,
		"fake-user":    fakeUser,
	}
	if len(os.Args) >= 2 && modes[os.Args[1]] != nil {
		if err := modes[os.Args[1]](); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func fakeWorker() error {
	report, err := sandbox.Enter(sandbox.Config{Namespaces: os.Getenv(NamespacesVariable) != ""})
	if err != nil {
		return err
	}
	return Serve(os.NewFile(3, "pool"), func(files map[string]*os.File) (*Loaded, error) {
		rules, err := io.ReadAll(files["other.yarc"])
		if err != nil {
			return nil, err
		}
		if strings.HasPrefix(string(rules), "bad") {
			return nil, errors.New("these rules are bad")
		}
		if strings.HasPrefix(string(rules), "crash") {
			os.Exit(9)
		}
		return &Loaded{Pipeline: &fakePipeline{}, Ready: Readiness{Rules: len(rules), Sandbox: report}}, nil
	})
}

// fakePipeline does what the file's first word says.
type fakePipeline struct{ served int }

func (p *fakePipeline) Inspect(_ context.Context, r io.ReaderAt, size int64, _ engine.Limits, emit func(threat.Object) error) error {
	p.served++
	data := make([]byte, size)
	if _, err := r.ReadAt(data, 0); err != nil && err != io.EOF {
		return err
	}
	word, argument, _ := strings.Cut(strings.TrimSpace(string(data)), " ")
	n, _ := strconv.Atoi(argument)
	if err := emit(threat.Object{Hash: sha256.Sum256(data), Size: size, Verdict: threat.Clean, Type: word}); err != nil {
		return err
	}
	switch word {
	case "crash":
		os.Exit(7)
	case "crash-unless-alone":
		if p.served > 1 {
			os.Exit(7)
		}
	case "panic":
		var m map[string]int
		m["x"] = 1
	case "hang":
		for {
			time.Sleep(time.Hour)
		}
	case "slow":
		time.Sleep(time.Duration(n) * time.Millisecond)
	case "memory":
		var all [][]byte
		for {
			all = append(all, bytes.Repeat([]byte("x"), 1<<20))
			time.Sleep(time.Millisecond)
		}
	case "members":
		for i := range n {
			if err := emit(threat.Object{Member: strings.Repeat("m", 100) + strconv.Itoa(i), Verdict: threat.Clean}); err != nil {
				return err
			}
		}
	case "long-members":
		for range n {
			if err := emit(threat.Object{Member: strings.Repeat("m", 4000), Verdict: threat.Clean}); err != nil {
				return err
			}
		}
		return emit(threat.Object{Member: strings.Repeat("m", 4000), Verdict: threat.Malicious})
	case "found-then-hang":
		bad := threat.Object{Member: strings.Repeat("m", maxEncoded/2), Verdict: threat.Malicious}
		for range 4 {
			if err := emit(bad); err != nil {
				return err
			}
		}
		time.Sleep(time.Hour)
	case "write":
		if _, err := unix.Write(int(r.(descriptor)), []byte("x")); err != unix.EBADF {
			return emit(threat.Object{Verdict: threat.Malicious})
		}
	case "fault":
		return errors.New("could not read it all")
	}
	return nil
}

// fakeLiar breaks the protocol in the way the file's content says.
func fakeLiar() error {
	s := &server{fd: 3, in: make([]byte, maxMessage), oob: make([]byte, 256)}
	if _, err := s.loading(); err != nil {
		return err
	}
	if err := send(3, append([]byte{msgReady}, "{}"...)); err != nil {
		return err
	}
	for {
		n, fds, err := receive(3, s.in, s.oob)
		if errors.Is(err, unix.EAGAIN) {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
		id := binary.LittleEndian.Uint64(s.in[1:])
		content, err := io.ReadAll(io.NewSectionReader(descriptor(fds[0]), 0, 1<<20))
		if err != nil {
			return err
		}
		clean, err := json.Marshal(threat.Object{Verdict: threat.Clean})
		if err != nil {
			return err
		}
		answer := beginAnswer(nil, id, "")
		switch string(content) {
		case "other id":
			answer = beginAnswer(nil, id-1, "")
			answer = appendObject(answer, clean)
		case "garbage":
			answer = bytes.Repeat([]byte{0xff}, 100)
		case "unknown verdict":
			answer = appendObject(answer, []byte(`{"verdict":"fine"}`))
		case "empty message":
			answer = []byte{msgDone}
		case "endless names":
			long, err := json.Marshal(threat.Object{Verdict: threat.Clean, Member: strings.Repeat("m", 60000)})
			if err != nil {
				return err
			}
			for {
				if err := send(3, appendObject(beginAnswer(nil, id, ""), long)); err != nil {
					return err
				}
			}
		case "endless":
			for {
				if err := send(3, appendObject(beginAnswer(nil, id, ""), clean)); err != nil {
					return err
				}
			}
		}
		if len(answer) >= answerHeader {
			finishAnswer(answer, 1)
		}
		if err := send(3, answer); err != nil {
			return err
		}
	}
}

func fakeCompile() error {
	var in CompileRequest
	if err := json.NewDecoder(os.Stdin).Decode(&in); err != nil {
		return err
	}
	report := CompileReport{Classes: map[string]int{}}
	for _, s := range in.Sources {
		switch string(s.Text) {
		case "CRASH":
			os.Exit(139)
		case "FAIL":
			report.Failure = "no memory"
		case "GARBAGE":
			fmt.Println("{")
			return nil
		case "HANG":
			time.Sleep(time.Hour)
		}
		report.Rules++
	}
	for i, name := range CompiledFiles {
		if _, err := os.NewFile(uintptr(3+i), name).WriteString(name); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// fakeParent has a pool with a busy worker, says its process ids, and waits to
// be killed.
func fakeParent() error {
	p, err := New(Config{Program: "/proc/self/exe", Args: []string{"fake-worker"}, Bundle: os.Args[2], Processes: 2})
	if err != nil {
		return err
	}
	f, err := os.Open(os.Args[3])
	if err != nil {
		return err
	}
	go p.Inspect(context.Background(), f, engine.Limits{}) //nolint:errcheck // never returns
	for p.Stats().Busy == 0 {
		time.Sleep(time.Millisecond)
	}
	for _, s := range p.slots {
		fmt.Println(s.current.Load().pid)
	}
	os.Stdout.Close()
	time.Sleep(time.Hour)
	return nil
}

// fakeUser inspects a file as whoever runs it and prints what came of it.
func fakeUser() error {
	p, err := New(Config{Program: os.Args[0], Args: []string{"fake-worker"}, Bundle: os.Args[2], Processes: 1})
	if err != nil {
		return err
	}
	defer p.Close()
	f, err := os.Open(os.Args[2] + "/file")
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := p.Inspect(context.Background(), f, engine.Limits{})
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(map[string]any{"Result": r, "Stats": p.Stats()})
}
