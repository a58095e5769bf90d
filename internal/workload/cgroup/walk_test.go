package cgroup

import (
	"testing"
	"testing/fstest"

	"github.com/stretchr/testify/require"
)

func procs(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }

func TestWalk(t *testing.T) {
	t.Parallel()
	hybrid := fstest.MapFS{
		"unified/cgroup.procs":                            procs("1\n"),
		"unified/docker/" + id + "/cgroup.procs":          procs("77\n78\n"),
		"unified/default/t1/cgroup.procs":                 procs(""),
		"unified/default/t1/inner/cgroup.procs":           procs("80\n"),
		"unified/docker/" + id2 + "/cgroup.procs":         procs(""), // no process: not running
		"unified/system.slice/ssh.service/cgroup.procs":   procs("5\n"),
		"devices/cgroup.procs":                            procs("1\n"),
		"devices/docker/" + id + "/cgroup.procs":          procs("77\n"),
		"devices/kubepods/pod" + uid + "/" + id2 + "/x":   procs(""),
		"devices/libpod_parent/libpod-" + id2 + "/x":      procs(""),
		"devices/lxc.payload.web/system.slice/x/y":        procs(""),
		"devices/lxc.payload.web/init.scope/cgroup.procs": procs("90\n"),
	}
	got, err := Walk(hybrid)
	require.NoError(t, err)
	found := map[string]int{}
	for _, g := range got {
		found[g.Ref.ID] = g.PID
	}
	require.Equal(t, map[string]int{id: 77, "t1": 80, "web": 90}, found)

	none, err := Walk(fstest.MapFS{})
	require.NoError(t, err)
	require.Empty(t, none)
}
