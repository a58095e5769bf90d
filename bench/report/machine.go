package report

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Machine is what the figures depend on.
type Machine struct {
	CPU    string `json:"cpu"`
	Cores  int    `json:"cores"`
	Memory uint64 `json:"memory"` // bytes
	Kernel string `json:"kernel"`
	System string `json:"system"`
	Go     string `json:"go"`
	Yara   string `json:"yara"`
	ClamAV string `json:"clamav"`
	Commit string `json:"commit"` // of the source tree
}

// Look collects the facts; what a machine does not say is "unknown".
func Look(ctx context.Context, root string) Machine {
	m := Machine{
		CPU: field("/proc/cpuinfo", "model name", ":"), Cores: runtime.NumCPU(), Go: runtime.Version(),
		System: strings.Trim(field("/etc/os-release", "PRETTY_NAME", "="), `"`),
		Yara:   firstLine(ctx, root, "yara", "--version"), ClamAV: firstLine(ctx, root, "clamscan", "--version"),
		Kernel: "unknown", Commit: firstLine(ctx, root, "git", "describe", "--always", "--dirty"),
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Release[:])
	}
	var s unix.Sysinfo_t
	if unix.Sysinfo(&s) == nil {
		m.Memory = s.Totalram * uint64(s.Unit)
	}
	return m
}

func field(path, name, separator string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return "unknown"
}

func firstLine(ctx context.Context, dir, name string, args ...string) string {
	c := exec.CommandContext(ctx, name, args...)
	c.Dir = dir
	out, err := c.Output()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	return line
}

func (m *Machine) sentence() string {
	return fmt.Sprintf("%s, %d cores, %.0f GB memory, Linux %s, %s, %s, yara %s, %s, commit %s",
		m.CPU, m.Cores, float64(m.Memory)/1e9, m.Kernel, m.System, m.Go, m.Yara, m.ClamAV, m.Commit)
}

// Header writes the facts for people.
func (r *Report) Header(w io.Writer) error {
	_, err := fmt.Fprintf(w, "Lazaret benchmarks, %s\n%s\n", r.Started.UTC().Format(time.RFC3339), r.Machine.sentence())
	return err
}
