// Package cgroup reads container identities out of control group paths: the
// text of /proc/PID/cgroup (cgroups(7)) and the directories of the cgroup file
// systems. Runtimes have no common form; the known ones are the rows of the
// table test.
package cgroup

import (
	"bytes"
	"strings"
)

// Ref is what a control group path says about a container.
type Ref struct {
	// Runtime is "docker", "podman", "cri-o", "containerd", "lxc", or empty when
	// the path does not tell (kubelet with the cgroupfs driver).
	Runtime string
	// Namespace of containerd, if the path has it.
	Namespace string
	// ID of the container; empty if the path names none.
	ID string
	// PodUID is the Kubernetes pod's uid with dashes; empty outside pods. Static
	// pods have a hash of their configuration here instead.
	PodUID string
	// Path is the control group the identity was read from, up to and including
	// the container's own component.
	Path string
	// Weak is set when the form of the path alone proves nothing: any service may
	// use a group /a/b. Believe it only if an inventory knows the container, or
	// the process has a mount namespace of its own.
	Weak bool
}

const (
	maxLines = 64   // hierarchies; Linux has less than 20
	maxPath  = 4096 // PATH_MAX
	maxParts = 64   // components looked at
)

// Parse reads the text of /proc/PID/cgroup. The unified hierarchy's line comes
// first; then the others, because a runtime may join only version 1. Of nested
// containers the outermost is returned: it is the one this host knows. The
// result is false when no line looks like a container.
func Parse(text []byte) (Ref, bool) {
	var weak Ref
	paths := lines(text)
	for pass := range 2 {
		for _, l := range paths {
			if l.unified != (pass == 0) {
				continue
			}
			ref, ok := ParsePath(l.path)
			switch {
			case ok && !ref.Weak:
				return ref, true
			case ok && weak.ID == "" && (l.unified || l.devices):
				weak = ref
			}
		}
	}
	return weak, weak.ID != ""
}

// Paths returns the distinct control groups of the text other than the root,
// the unified hierarchy's first.
func Paths(text []byte) []string {
	var out []string
	seen := map[string]bool{"/": true}
	for _, l := range lines(text) {
		if !seen[l.path] {
			seen[l.path] = true
			if l.unified {
				out = append([]string{l.path}, out...)
			} else {
				out = append(out, l.path)
			}
		}
	}
	return out
}

type line struct {
	path    string
	unified bool // hierarchy 0: cgroup version 2
	devices bool // the v1 hierarchy that runtimes always use and services rarely
}

// lines splits "ID:controllers:path"; the path may contain colons.
func lines(text []byte) []line {
	var out []line
	for n := 0; len(text) > 0 && n < maxLines; n++ {
		var l []byte
		l, text, _ = bytes.Cut(text, []byte{'\n'})
		id, rest, ok := bytes.Cut(l, []byte{':'})
		controllers, path, ok2 := bytes.Cut(rest, []byte{':'})
		if !ok || !ok2 || len(path) == 0 || path[0] != '/' || len(path) > maxPath {
			continue
		}
		out = append(out, line{
			path:    string(path),
			unified: string(id) == "0" && len(controllers) == 0,
			devices: string(controllers) == "devices",
		})
	}
	return out
}

// ParsePath reads one control group path.
func ParsePath(path string) (Ref, bool) {
	if len(path) > maxPath {
		return Ref{}, false
	}
	var ref Ref
	parts := strings.Split(strings.Trim(path, "/"), "/")
	for i, part := range parts[:min(len(parts), maxParts)] {
		if uid := podUID(part); uid != "" {
			ref.PodUID = uid
		}
		runtime, id := container(part)
		if id == "" {
			continue
		}
		ref.ID, ref.Runtime = id, runtime
		if runtime == "" && i > 0 {
			ref.Runtime, ref.Namespace = parent(parts[:i])
		}
		ref.Path = "/" + strings.Join(parts[:i+1], "/")
		return ref, true
	}
	// ctr and nerdctl: /<containerd namespace>/<container name>
	if len(parts) >= 2 && name(parts[0]) && name(parts[1]) && ref.PodUID == "" {
		return Ref{
			Runtime: "containerd", Namespace: parts[0], ID: parts[1],
			Path: "/" + parts[0] + "/" + parts[1], Weak: true,
		}, true
	}
	return Ref{}, false
}

// runtimes maps what stands before the container id in systemd's scopes.
var runtimes = map[string]string{
	"cri-containerd": "containerd", "nerdctl": "containerd", "crio": "cri-o", "docker": "docker", "libpod": "podman",
}

// container recognises a component that contains a 64-digit container id:
// bare, "prefix-ID", "prefix-ID.scope" or "slice:prefix:ID". Monitors such as
// "libpod-conmon-ID.scope" belong to the host.
func container(part string) (runtime, id string) {
	part = strings.TrimSuffix(part, ".scope")
	if n, ok := strings.CutPrefix(part, "lxc.payload."); ok && name(n) {
		return "lxc", n
	}
	if len(part) < 64 || !hex(part[len(part)-64:]) {
		return "", ""
	}
	id, prefix := part[len(part)-64:], part[:len(part)-64]
	if prefix == "" {
		return "", id
	}
	sep := prefix[len(prefix)-1]
	prefix = prefix[:len(prefix)-1]
	if sep == ':' {
		prefix = prefix[strings.LastIndexByte(prefix, ':')+1:]
	}
	if r, ok := runtimes[prefix]; ok && (sep == '-' || sep == ':') {
		return r, id
	}
	return "", ""
}

// parent tells the runtime of a bare id by the components above it.
func parent(above []string) (runtime, namespace string) {
	switch {
	case above[len(above)-1] == "docker":
		return "docker", ""
	case strings.HasPrefix(above[0], "libpod"):
		return "podman", ""
	case len(above) == 1 && name(above[0]) && above[0] != "kubepods":
		return "containerd", above[0]
	}
	return "", ""
}

// podUID reads "pod<uid>" and "kubepods-…-pod<uid with underscores>.slice".
func podUID(part string) string {
	// "slice:prefix:id" carries the pod's slice in front.
	part, _, _ = strings.Cut(part, ":")
	uid, ok := strings.CutPrefix(part, "pod")
	if !ok {
		s, slice := strings.CutSuffix(part, ".slice")
		_, uid, ok = strings.Cut(s, "-pod")
		if !slice || !ok || !strings.HasPrefix(s, "kubepods") {
			return ""
		}
	}
	uid = strings.ReplaceAll(uid, "_", "-")
	bare := strings.ReplaceAll(uid, "-", "")
	if len(bare) != 32 || len(uid) > 36 || !hex(bare) {
		return ""
	}
	return uid
}

func hex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// name reports whether s can be a containerd identifier (at most 76 letters,
// digits and single separators) and is not a systemd unit.
func name(s string) bool {
	if len(s) == 0 || len(s) > 76 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		sep := c == '.' || c == '_' || c == '-'
		if !alnum && (!sep || i == 0 || i == len(s)-1) {
			return false
		}
	}
	for _, unit := range []string{".slice", ".scope", ".service", ".mount", ".socket", ".swap"} {
		if strings.HasSuffix(s, unit) {
			return false
		}
	}
	return true
}
