package node

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"

	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload"
)

// containers answers questions of the scan service and the response about
// running containers.
type containers struct{ who *workload.Resolver }

// Root returns the first process of a container, by name or id.
func (c containers) Root(_ context.Context, name string) (int, threat.Workload, error) {
	var running []workload.Entry
	for _, e := range c.who.Lookup(name) {
		if e.PID > 0 {
			running = append(running, e)
		}
	}
	switch len(running) {
	case 0:
		return 0, threat.Workload{}, fmt.Errorf("no running container is called %q; see lazaret workload list", name)
	case 1:
		return running[0].PID, running[0].Workload, nil
	}
	return 0, threat.Workload{}, fmt.Errorf("%q names %d containers; use an id of lazaret workload list", name, len(running))
}

// Process returns the first process of a workload and its start time.
func (c containers) Process(_ context.Context, id string) (pid int, start uint64, ok bool) {
	container, ok := strings.CutPrefix(id, workload.ID(""))
	if !ok {
		return 0, 0, false
	}
	e, ok := c.who.Entry(container)
	if !ok || e.PID <= 0 {
		return 0, 0, false
	}
	p, err := c.who.Describe(e.PID)
	if err != nil {
		return 0, 0, false
	}
	return e.PID, p.Start, true
}

// child reports whether a process is one of our own workers, which are never
// killed as an answer to what they read.
func child(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return false
	}
	_, rest, _ := strings.Cut(string(b), "\nPPid:\t")
	parent, _, _ := strings.Cut(rest, "\n")
	return parent == strconv.Itoa(os.Getpid())
}

// spread counts the workloads an object was seen in.
type spread struct{ scans *scan.Service }

// Workloads implements response.Spread.
func (s spread) Workloads(h threat.Hash) (int, error) {
	return s.scans.Workloads(context.Background(), h)
}
