package mounts

import (
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const sample = `22 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
30 22 0:25 / /run rw,nosuid shared:2 master:1 - tmpfs tmpfs rw,size=10k
65 64 0:60 / / ro,relatime master:9 - overlay overlay rw,lowerdir=/r/snapshots/3/fs:/r/snapshots/1/fs,upperdir=/r/snapshots/7/fs,workdir=/r/snapshots/7/work,uuid=on
66 65 7:3 /vol\040one /srv/my\134dir rw - xfs /dev/loop3 ro,attr2
garbage line
67 65 x:y / / rw - ext4 /dev/sda rw
68 65 254:0 / relative rw - ext4 /dev/sda rw
`

func TestParse(t *testing.T) {
	t.Parallel()
	ms := Parse([]byte(sample))
	require.Len(t, ms, 4)
	require.Equal(t, Mount{ID: 22, Dev: Makedev(254, 0), Root: "/", Point: "/", Options: "rw,relatime", FSOptions: "rw,discard", Type: "ext4", Source: "/dev/vda"}, ms[0])
	require.Equal(t, "tmpfs", ms[1].Type)
	require.Equal(t, "/vol one", ms[3].Root)
	require.Equal(t, `/srv/my\dir`, ms[3].Point)
	require.False(t, ms[0].ReadOnly())
	require.True(t, ms[2].ReadOnly(), "mount option")
	require.True(t, ms[3].ReadOnly(), "file system option")
	for name, want := range map[string]string{"upperdir": "/r/snapshots/7/fs", "rw": "", "uuid": "on"} {
		value, ok := ms[2].FSOption(name)
		require.True(t, ok, name)
		require.Equal(t, want, value)
	}
	_, ok := ms[2].FSOption("upper")
	require.False(t, ok)
	_, ok = ms[0].Overlay()
	require.False(t, ok)
}

func TestOverlay(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, options string
		want          Overlay
	}{
		{"containerd", "rw,lowerdir=/r/s/3/fs:/r/s/1/fs,upperdir=/r/s/7/fs,workdir=/r/s/7/work", Overlay{Upper: "/r/s/7/fs", Lower: []string{"/r/s/3/fs", "/r/s/1/fs"}}},
		{"shortened", "rw,lowerdir=3/fs:1/fs,upperdir=/r/s/7/fs,workdir=/r/s/7/work", Overlay{Upper: "/r/s/7/fs", Lower: []string{"/r/s/3/fs", "/r/s/1/fs"}}},
		{"docker shortened", "rw,lowerdir=l/AAA:l/BBB,upperdir=/d/overlay2/x/diff,workdir=/w", Overlay{Upper: "/d/overlay2/x/diff", Lower: []string{"/d/overlay2/l/AAA", "/d/overlay2/l/BBB"}}},
		{"one by one", "rw,lowerdir+=/a,lowerdir+=/b:c,upperdir=/u", Overlay{Upper: "/u", Lower: []string{"/a", "/b:c"}}},
		{"read-only", "ro,lowerdir=/a:/b", Overlay{Lower: []string{"/a", "/b"}}},
		{"data layers", "ro,lowerdir=/a:/b::/data", Overlay{Lower: []string{"/a", "/b", "/data"}}},
		{"escaped", `rw,lowerdir=/a\134:b:/c\054d:/e\040f,upperdir=/u\054x`, Overlay{Upper: "/u,x", Lower: []string{"/a:b", "/c,d", "/e f"}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			m := Mount{Type: "overlay", FSOptions: c.options, Point: "/", Root: "/"}
			c.want.Point, c.want.Root = "/", "/"
			got, ok := m.Overlay()
			require.True(t, ok)
			require.Equal(t, c.want, got)
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(sample))
	f.Add([]byte(`1 1 0:1 / / rw - overlay overlay rw,lowerdir+=/a\072b,lowerdir=x:\:y::z\,upperdir=\` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, m := range Parse(text) {
			if !strings.HasPrefix(m.Point, "/") {
				t.Fatalf("relative mount point %q", m.Point)
			}
			o, _ := m.Overlay()
			if len(o.Lower) > maxLower {
				t.Fatal("too many layers")
			}
			for _, l := range o.Lower {
				if !path.IsAbs(l) || path.Clean(l) != l {
					t.Fatalf("layer %q is not a clean absolute path", l)
				}
			}
		}
	})
}

func BenchmarkParse(b *testing.B) {
	text := []byte(strings.Repeat(sample, 10))
	b.ReportAllocs()
	for b.Loop() {
		if len(Parse(text)) != 40 {
			b.Fatal("lines lost")
		}
	}
}
