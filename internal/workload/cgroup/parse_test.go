package cgroup

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const (
	id  = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
	id2 = "fedcba9876543210fedcba9876543210fedcba9876543210fedcba9876543210"
	uid = "11112222-3333-4444-5555-666677778888"
	usd = "11112222_3333_4444_5555_666677778888"
)

func TestParsePath(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, path string
		want       Ref // Path is only compared when set
	}{
		{"ctr", "/default/web-1", Ref{Runtime: "containerd", Namespace: "default", ID: "web-1", Weak: true, Path: "/default/web-1"}},
		{"ctr, subgroup", "/default/web-1/init", Ref{Runtime: "containerd", Namespace: "default", ID: "web-1", Weak: true, Path: "/default/web-1"}},
		{"nerdctl", "/default/" + id, Ref{Runtime: "containerd", Namespace: "default", ID: id}},
		{"docker, cgroupfs", "/docker/" + id, Ref{Runtime: "docker", ID: id, Path: "/docker/" + id}},
		{"docker, systemd inside", "/docker/" + id + "/system.slice/sshd.service", Ref{Runtime: "docker", ID: id, Path: "/docker/" + id}},
		{"docker in docker", "/docker/" + id + "/docker/" + id2, Ref{Runtime: "docker", ID: id}},
		{"docker, systemd", "/system.slice/docker-" + id + ".scope", Ref{Runtime: "docker", ID: id}},
		{"docker, own parent", "/tenants/blue/" + id, Ref{ID: id}},
		{"docker, seen from its cgroup namespace", "/../" + id, Ref{ID: id}},
		{"podman, cgroupfs", "/libpod_parent/libpod-" + id, Ref{Runtime: "podman", ID: id}},
		{"podman, systemd", "/machine.slice/libpod-" + id + ".scope/container", Ref{Runtime: "podman", ID: id}},
		{"kubelet, cgroupfs, guaranteed", "/kubepods/pod" + uid + "/" + id, Ref{ID: id, PodUID: uid}},
		{"kubelet, cgroupfs, burstable", "/kubepods/burstable/pod" + uid + "/" + id, Ref{ID: id, PodUID: uid}},
		{"kubelet, cgroupfs, static pod", "/kubepods/besteffort/pod" + id[:32] + "/" + id, Ref{ID: id, PodUID: id[:32]}},
		{"kubelet, systemd, containerd", "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + usd + ".slice/cri-containerd-" + id + ".scope", Ref{Runtime: "containerd", ID: id, PodUID: uid}},
		{"kubelet, systemd, cri-o", "/kubepods.slice/kubepods-pod" + usd + ".slice/crio-" + id + ".scope", Ref{Runtime: "cri-o", ID: id, PodUID: uid}},
		{"kubelet, systemd, docker", "/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + usd + ".slice/docker-" + id + ".scope", Ref{Runtime: "docker", ID: id, PodUID: uid}},
		{"kubelet systemd, containerd cgroupfs", "/system.slice/containerd.service/kubepods-burstable-pod" + usd + ".slice:cri-containerd:" + id, Ref{Runtime: "containerd", ID: id, PodUID: uid}},
		{"lxc", "/lxc.payload.web/system.slice/cron.service", Ref{Runtime: "lxc", ID: "web"}},

		{"root", "/", Ref{}},
		{"pod without container", "/kubepods/burstable/pod" + uid, Ref{}},
		{"service", "/system.slice/ssh.service", Ref{}},
		{"session", "/user.slice/user-1000.slice/session-3.scope", Ref{}},
		{"podman's monitor", "/machine.slice/libpod-conmon-" + id + ".scope", Ref{}},
		{"cri-o's monitor", "/system.slice/crio-conmon-" + id + ".scope", Ref{}},
		{"one component", "/init.scope", Ref{}},
		{"too long", "/" + strings.Repeat("a/", 3000) + id, Ref{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got, ok := ParsePath(c.path)
			require.Equal(t, c.want.ID != "", ok)
			if c.want.Path == "" {
				got.Path = ""
			}
			require.Equal(t, c.want, got)
		})
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text string
		want       string // container id
		weak       bool
	}{
		{"unified", "0::/docker/" + id + "\n", id, false},
		{"hybrid", "9:name=systemd:/docker/" + id + "\n4:memory:/docker/" + id + "\n0::/docker/" + id + "\n", id, false},
		{"version 1 only", "5:devices:/docker/" + id + "\n4:memory:/docker/" + id + "\n", id, false},
		{"unified wins", "4:memory:/docker/" + id2 + "\n0::/docker/" + id + "\n", id, false},
		{"joined version 1 first", "4:memory:/docker/" + id + "\n0::/\n", id, false},
		{"ctr", "5:devices:/default/t1\n0::/default/t1\n", "t1", true},
		{"ctr, version 1", "5:devices:/default/t1\n4:memory:/default/t1\n", "t1", true},
		{"strong beats weak", "5:devices:/docker/" + id + "\n0::/a/b\n", id, false},
		{"a service's own memory group", "5:devices:/\n4:memory:/vm_api/415a0c0f\n0::/\n", "", false},
		{"colons in the path", "0::/system.slice/x.service/kubepods-pod" + usd + ".slice:cri-containerd:" + id + "\n", id, false},
		{"host", "0::/system.slice/ssh.service\n", "", false},
		{"empty", "", "", false},
		{"garbage", "::\n:::\nx\n0::relative/" + id + "\n", "", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ref, ok := Parse([]byte(c.text))
			require.Equal(t, c.want != "", ok)
			require.Equal(t, c.want, ref.ID)
			require.Equal(t, c.weak, ref.Weak)
		})
	}
}

func TestPaths(t *testing.T) {
	t.Parallel()
	require.Equal(t, []string{"/a/b", "/m"}, Paths([]byte("4:memory:/m\n3:cpu:/m\n2:pids:/\n0::/a/b\n")))
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("9:name=systemd:/docker/" + id + "\n0::/default/t1\n"))
	f.Add([]byte("0::/kubepods.slice/kubepods-pod" + usd + ".slice/cri-containerd-" + id + ".scope\n"))
	f.Add([]byte("0::/system.slice/containerd.service/kubepods-pod" + usd + ".slice:cri-containerd:" + id))
	f.Fuzz(func(t *testing.T, text []byte) {
		ref, ok := Parse(text)
		if ok && (ref.ID == "" || len(ref.ID) > 76 || strings.ContainsAny(ref.ID, "/\n \x00")) {
			t.Fatalf("bad id %q", ref.ID)
		}
		if !ok && ref != (Ref{}) {
			t.Fatalf("result without ok: %+v", ref)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := []byte("9:name=systemd:/docker/" + id + "\n4:memory:/docker/" + id + "\n0::/docker/" + id + "\n")
	b.ReportAllocs()
	for b.Loop() {
		if _, ok := Parse(text); !ok {
			b.Fatal("not found")
		}
	}
}
