package workload

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path"
	"strconv"
	"strings"

	"github.com/lazaret/lazaret/internal/threat"
)

// maxCommand bounds the command line kept of a process, in bytes.
const maxCommand = 4096

// Describe reads what a finding says about a process: executable, command
// line, real uid and start time (proc(5)). Start together with the pid names
// a process for good; a pid alone is used again. What cannot be read (the
// process is ending) stays empty; an error means that the process is gone.
func (r *Resolver) Describe(pid int) (threat.Process, error) {
	p := threat.Process{PID: pid}
	dir := path.Join(r.cfg.Proc, strconv.Itoa(pid))
	start, err := startTime(dir)
	if err != nil {
		return p, fmt.Errorf("describing process %d: %w", pid, err)
	}
	p.Start = start
	if exe, err := os.Readlink(dir + "/exe"); err == nil {
		p.Exe = strings.TrimSuffix(exe, " (deleted)")
	}
	if b, err := readSome(dir+"/cmdline", maxCommand); err == nil {
		b = bytes.TrimRight(b, "\x00")
		p.Command = strings.ToValidUTF8(string(bytes.ReplaceAll(b, []byte{0}, []byte{' '})), "�")
	}
	if b, err := readSome(dir+"/status", 8192); err == nil {
		p.UID = uid(b)
	}
	return p, nil
}

// startTime reads field 22 of /proc/PID/stat, clock ticks since boot. The
// second field is the command in parentheses and may contain anything, so
// counting starts at the last parenthesis.
func startTime(dir string) (uint64, error) {
	b, err := readSome(dir+"/stat", 4096)
	if err != nil {
		return 0, err
	}
	_, rest, _ := bytes.Cut(b[max(0, bytes.LastIndexByte(b, ')')):], []byte(") "))
	fields := bytes.Fields(rest)
	if len(fields) < 20 {
		return 0, fmt.Errorf("reading %s/stat: %w", dir, io.ErrUnexpectedEOF)
	}
	return strconv.ParseUint(string(fields[19]), 10, 64)
}

// uid reads the real uid from /proc/PID/status.
func uid(status []byte) uint32 {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte("Uid:")); ok {
			if f := bytes.Fields(rest); len(f) > 0 {
				n, _ := strconv.ParseUint(string(f[0]), 10, 32)
				return uint32(n)
			}
		}
	}
	return 0
}

func readSome(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, limit))
}
