package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/bench/report"
)

// unpack measures tar x of a large source tree: many small files are created,
// written and closed.
func unpack(ctx context.Context, l *lab) (*report.Part, error) {
	p := &report.Part{Name: "unpack", Title: "tar x of a large source tree"}
	archive := filepath.Join(l.work, "source.tar")
	if _, err := output(ctx, "tar", "-C", l.goroot, "-cf", archive, "src"); err != nil {
		return nil, err
	}
	l.later(func() error { return os.Remove(archive) })
	size, files, err := count(filepath.Join(l.goroot, "src"))
	if err != nil {
		return nil, err
	}
	p.Describe("The source tree of Go, %d files, %.0f MB, is unpacked into an empty directory (%s); the archive is on a file system that nobody watches. After each run the watcher becomes idle.", files, float64(size)/1e6, l.medium())
	free, err := l.fileSystem(ctx, "free", 1<<30)
	if err != nil {
		return nil, err
	}
	guarded, err := l.fileSystem(ctx, "guarded", 1<<30)
	if err != nil {
		return nil, err
	}
	n := l.times(7)
	command := "tar -xf source.tar"
	alone := p.Add("not protected", command, report.Seconds)
	ours := p.Add("protected by lazaret up", command, report.Seconds)
	oursBusy := p.Add("processor time of Lazaret for one run", "", report.Seconds)
	d, err := l.daemon(ctx, guarded)
	if err != nil {
		return nil, err
	}
	watched := unpacking{archive, guarded, d.cmd.Process.Pid, ours, oursBusy}
	plain := unpacking{archive, free, 0, alone, nil}
	if err := alternate(ctx, n, plain, watched); err != nil {
		return nil, err
	}
	if err := d.told(ctx, p); err != nil {
		return nil, err
	}
	if err := d.stop(); err != nil {
		return nil, err
	}
	peerAlone := p.Add("not protected, while measuring clamonacc", command, report.Seconds)
	peer := p.Add("protected by clamonacc", command, report.Seconds)
	peerBusy := p.Add("processor time of clamd and clamonacc for one run", "", report.Seconds)
	p.Promise(published("added by Lazaret", ours, alone))
	c, err := l.clamonacc(ctx)
	if err != nil {
		p.Note("clamonacc could not be measured here: %v", err)
		p.Promise(report.Promise{Text: "time added by clamonacc against time added by Lazaret", Unit: report.Seconds, Ratio: math.NaN(), Limit: 10, AtLeast: true})
		return p, nil
	}
	plain.series = peerAlone
	if err := alternate(ctx, min(n, 3), plain, unpacking{archive, c.mnt, c.pid, peer, peerBusy}); err != nil {
		return nil, err
	}
	peer.Command = c.command
	p.Promise(published("added by clamonacc", peer, peerAlone))
	p.Promise(added(ours, alone, peer, peerAlone))
	p.Describe("clamonacc: %s", c.setup)
	return p, nil
}

// told notes whether every written file was inspected: a watcher that gives up
// is not fast.
func (d *daemon) told(ctx context.Context, p *report.Part) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(6 * time.Second): // the node reports every 5 s
	}
	r, err := d.report(ctx)
	if err != nil {
		return err
	}
	p.Note("Of %d notifications about written files Lazaret gave up %d, which are inspected when the file is opened next.",
		r.Stats["fanotify_writes_total"], r.Stats["fanotify_events_lost_total"])
	return nil
}

// published is a figure without a promise: what watching adds.
func published(text string, with, without *report.Series) report.Promise {
	return report.Promise{Text: text, Ours: with.Median() - without.Median(), Unit: with.Unit, Published: true}
}

// added promises that the peer adds at least ten times as much as we do. Less
// than a hundredth of the run is noise and counts as that.
func added(ours, alone, peer, peerAlone *report.Series) report.Promise {
	own := max(ours.Median()-alone.Median(), alone.Median()/100)
	other := peer.Median() - peerAlone.Median()
	return report.Promise{
		Text: "time added by clamonacc at least ten times that added by Lazaret", Ours: own, Peer: other, Unit: ours.Unit,
		Ratio: other / own, Limit: 10, AtLeast: true,
	}
}

// unpacking is one way to do it.
type unpacking struct {
	archive string
	fs      string
	watcher int // root of the processes that watch, 0: none
	series  *report.Series
	busy    *report.Series
}

// alternate runs both in turn; the first run of each only warms up.
func alternate(ctx context.Context, n int, both ...unpacking) error {
	for i := range n + 1 {
		for _, u := range both {
			took, used, err := u.run(ctx)
			if err != nil {
				return err
			}
			if i == 0 {
				continue
			}
			u.series.AddTime(took)
			if u.busy != nil {
				u.busy.AddTime(used)
			}
		}
	}
	return nil
}

func (u unpacking) run(ctx context.Context) (took, used time.Duration, err error) {
	to := filepath.Join(u.fs, "tree")
	if err := os.Mkdir(to, 0o755); err != nil {
		return 0, 0, fmt.Errorf("unpacking: %w", err)
	}
	unix.Sync()
	var before, after time.Duration
	if u.watcher != 0 {
		if before, err = busy(u.watcher); err != nil {
			return 0, 0, err
		}
	}
	c := exec.CommandContext(ctx, "tar", "-C", to, "-xf", u.archive)
	if took, err = timed(c); err != nil {
		return 0, 0, err
	}
	if u.watcher != 0 {
		err := idle(ctx, u.watcher)
		var err2 error
		after, err2 = busy(u.watcher)
		if err := errors.Join(err, err2); err != nil {
			return 0, 0, err
		}
	}
	if err := os.RemoveAll(to); err != nil {
		return 0, 0, fmt.Errorf("removing what was unpacked: %w", err)
	}
	return took, after - before, nil
}

// count adds up the regular files of a tree.
func count(root string) (size, files int64, err error) {
	err = filepath.WalkDir(root, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err == nil {
			size += info.Size()
			files++
		}
		return err
	})
	return size, files, err
}
