package node

import (
	"context"
	"log/slog"
	"os"

	"github.com/lazaret/lazaret/internal/workload"
	"github.com/lazaret/lazaret/internal/workload/bare"
	"github.com/lazaret/lazaret/internal/workload/containerd"
	"github.com/lazaret/lazaret/internal/workload/docker"
	"github.com/lazaret/lazaret/internal/workload/nri"
)

// socket returns the path of a runtime's socket: the configured one, or the
// usual one; empty if the runtime is off.
func socket(configured, usual string) string {
	switch configured {
	case "off":
		return ""
	case "auto", "":
		return usual
	}
	return configured
}

// openWorkloads makes an inventory per runtime. The runtime may come later:
// inventories connect when it is there. What is known best comes first.
func (n *Node) openWorkloads(context.Context) error {
	var inventories []workload.Inventory
	if s := socket(n.cfg.Runtimes.Docker, docker.DefaultSocket); s != "" {
		inv, err := docker.New(docker.Config{Socket: s, Log: n.cfg.Logger})
		if err != nil {
			return err
		}
		n.closers = append(n.closers, inv)
		inventories = append(inventories, inv)
	}
	if s := socket(n.cfg.Runtimes.NRI, nri.DefaultSocket); s != "" {
		inv, err := nri.New(nri.Config{Socket: s, Log: n.cfg.Logger})
		if err != nil {
			return err
		}
		inventories = append(inventories, inv)
	}
	if s := socket(n.cfg.Runtimes.Containerd, containerd.DefaultSocket); s != "" {
		inv, err := containerd.New(containerd.Config{Socket: s, Log: n.cfg.Logger})
		if err != nil {
			return err
		}
		n.closers = append(n.closers, inv)
		inventories = append(inventories, inv)
	}
	groups, err := bare.New(bare.Config{Log: n.cfg.Logger})
	if err != nil {
		return err
	}
	inventories = append(inventories, groups)
	n.who, err = workload.New(workload.Config{
		Node: n.cfg.Node, Inventories: inventories, Log: n.cfg.Logger, OnChange: n.workloadChanged,
	})
	return err
}

// runtime reports whether a container runtime is there: only then directories
// such as /var/lib/containerd hold containers.
func (n *Node) runtime() bool {
	r := n.cfg.Runtimes
	for _, s := range []string{
		socket(r.NRI, nri.DefaultSocket), socket(r.Docker, docker.DefaultSocket), socket(r.Containerd, containerd.DefaultSocket),
	} {
		if _, err := os.Stat(s); s != "" && err == nil {
			return true
		}
	}
	return false
}

// workloadChanged is called for containers that start and stop.
func (n *Node) workloadChanged(c workload.Change) {
	n.cfg.Logger.Debug("workload changed", slog.String("workload", c.Workload.ID), slog.Bool("running", c.Running))
	if n.protection != nil && c.Running {
		n.protection.Changed()
	}
	if n.link != nil {
		n.link.ReportNow()
	}
}
