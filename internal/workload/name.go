package workload

import (
	"maps"

	"github.com/lazaret/lazaret/internal/threat"
)

// HostID is the id of the host's own workload.
const HostID = "host"

// ID returns the workload id of a container.
func ID(container string) string { return "container/" + container }

// Labels that Kubernetes' container runtimes put on containers, and our own.
const (
	LabelPodName      = "io.kubernetes.pod.name"
	LabelPodNamespace = "io.kubernetes.pod.namespace"
	LabelPodUID       = "io.kubernetes.pod.uid"
	LabelContainer    = "io.kubernetes.container.name"
	// LabelTenant names the tenant explicitly; else it is the Kubernetes
	// namespace, if there is one.
	LabelTenant = "lazaret.io/tenant"
)

// Container makes the workload of a container from what every runtime knows:
// its id, its name ("" if it has none), its image's reference and its labels,
// among them Kubernetes' own.
func Container(runtime, id, name, image string, labels map[string]string) threat.Workload {
	w := threat.Workload{
		ID: ID(id), Kind: threat.KindContainer, Name: name, Runtime: runtime, Image: image,
		Labels: maps.Clone(labels), Tenant: labels[LabelTenant],
	}
	if pod := labels[LabelPodName]; pod != "" {
		w.Namespace = labels[LabelPodNamespace]
		w.Pod = w.Namespace + "/" + pod
		if n := labels[LabelContainer]; n != "" {
			w.Name = n
		} else {
			w.Name = "sandbox" // the pod's own pause container
		}
		if w.Tenant == "" {
			w.Tenant = w.Namespace
		}
	}
	if w.Name == "" {
		w.Name = Short(id)
	}
	return w
}

// Short shortens a container id for people: long hexadecimal ids to their
// first 12 digits, as the runtimes' own tools do.
func Short(id string) string {
	if len(id) == 64 {
		return id[:12]
	}
	return id
}
