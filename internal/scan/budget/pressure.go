// Package budget makes background work yield to the machine's own work, by the
// kernel's pressure stall information
// (Documentation/accounting/psi.rst): the share of time in which some task
// waited for a processor or for storage.
package budget

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// maxFile bounds what is read of a file of the kernel.
const maxFile = 16 << 10

// parsePressure returns "some avg10" of a pressure file in percent.
func parsePressure(b []byte) (float64, error) {
	for line := range bytes.Lines(b) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || string(fields[0]) != "some" {
			continue
		}
		for _, f := range fields[1:] {
			v, ok := bytes.CutPrefix(f, []byte("avg10="))
			if !ok {
				continue
			}
			x, err := strconv.ParseFloat(string(v), 64)
			if err != nil || x < 0 || x > 100 || x != x {
				return 0, fmt.Errorf("parsing pressure: %q is not a percentage", v)
			}
			return x, nil
		}
	}
	return 0, errors.New("parsing pressure: there is no some avg10")
}

// parseLoad returns the one-minute load average of /proc/loadavg.
func parseLoad(b []byte) (float64, error) {
	fields := bytes.Fields(b)
	if len(fields) == 0 {
		return 0, errors.New("parsing load average: it is empty")
	}
	x, err := strconv.ParseFloat(string(fields[0]), 64)
	if err != nil || x < 0 || x != x {
		return 0, fmt.Errorf("parsing load average: %q is not a number", fields[0])
	}
	return x, nil
}

// parseCgroup returns the version 2 path of a /proc/PID/cgroup file.
func parseCgroup(b []byte) (string, bool) {
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::/"); ok {
			return filepath.Clean("/" + path), true
		}
	}
	return "", false
}

func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, maxFile))
}

func readPressure(path string) (float64, error) {
	b, err := readFile(path)
	if err != nil {
		return 0, fmt.Errorf("reading pressure: %w", err)
	}
	return parsePressure(b)
}
