package containerd

import (
	"context"
	"encoding/json"
	"maps"
	"strings"

	containersapi "github.com/containerd/containerd/api/services/containers/v1"

	"github.com/lazaret/lazaret/internal/workload"
)

// labelKind tells pod sandboxes from containers.
const labelKind = "io.cri-containerd.kind"

// entry describes a container; labels of its pod come from the pod's sandbox,
// which starts before its containers.
func (i *Inventory) entry(ctx context.Context, ns string, c *containersapi.Container, pid int) workload.Entry {
	var pod map[string]string
	if uid := c.Labels[workload.LabelPodUID]; uid != "" {
		for _, e := range i.Entries() {
			if e.Labels[workload.LabelPodUID] == uid && e.Labels[labelKind] == "sandbox" {
				pod = e.Labels
			}
		}
	}
	return i.entryWith(ctx, ns, c, pid, pod)
}

func (i *Inventory) entryWith(ctx context.Context, ns string, c *containersapi.Container, pid int, pod map[string]string) workload.Entry {
	labels := map[string]string{}
	maps.Copy(labels, pod)
	maps.Copy(labels, c.Labels)
	runtime, name := "containerd", c.ID
	switch {
	case ns == "moby":
		runtime, name = "docker", ""
	case labels["nerdctl/name"] != "":
		name = labels["nerdctl/name"]
	case len(c.ID) == 64:
		name = ""
	}
	return workload.Entry{
		Workload:  workload.Container(runtime, c.ID, name, c.Image, labels),
		Container: c.ID, PID: pid, Cgroup: specCgroup(c),
		Layers: i.layersOf(ctx, ns, c),
	}
}

// podLabels maps pod uids to the labels of their sandboxes.
func podLabels(containers []*containersapi.Container) map[string]map[string]string {
	out := map[string]map[string]string{}
	for _, c := range containers {
		if uid := c.Labels[workload.LabelPodUID]; uid != "" && c.Labels[labelKind] == "sandbox" {
			out[uid] = c.Labels
		}
	}
	return out
}

// specCgroup reads linux.cgroupsPath from the container's OCI runtime
// specification. systemd's "slice:prefix:name" form is no path and gives "".
func specCgroup(c *containersapi.Container) string {
	if c.Spec == nil || len(c.Spec.Value) > 4<<20 {
		return ""
	}
	var spec struct {
		Linux struct {
			CgroupsPath string `json:"cgroupsPath"`
		} `json:"linux"`
	}
	if json.Unmarshal(c.Spec.Value, &spec) != nil || !strings.HasPrefix(spec.Linux.CgroupsPath, "/") {
		return ""
	}
	return spec.Linux.CgroupsPath
}
