package cgroup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
)

// Group is a container's control group that has processes.
type Group struct {
	Ref Ref
	// PID of one of its processes.
	PID int
}

const (
	maxDepth  = 12
	maxGroups = 50_000 // directories visited
)

// Walk finds the control groups of containers below a cgroup file system,
// usually os.DirFS("/sys/fs/cgroup"): in the unified hierarchy where it is
// mounted (the root itself or "unified"), else in version 1's "devices". Weak
// references are included; the caller decides whether to believe them.
func Walk(fsys fs.FS) ([]Group, error) {
	var out []Group
	for _, root := range []string{".", "unified", "devices"} {
		if _, err := fs.Stat(fsys, path.Join(root, "cgroup.procs")); err != nil {
			continue
		}
		w := walker{fs: fsys, root: root}
		if err := w.dir("/", 0); err != nil {
			return out, fmt.Errorf("walking the control groups: %w", err)
		}
		seen := map[string]bool{}
		for _, g := range out {
			seen[g.Ref.ID] = true
		}
		for _, g := range w.out {
			if !seen[g.Ref.ID] {
				out = append(out, g)
			}
		}
	}
	return out, nil
}

type walker struct {
	fs      fs.FS
	root    string
	visited int
	out     []Group
}

func (w *walker) dir(group string, depth int) error {
	if w.visited++; w.visited > maxGroups {
		return fmt.Errorf("more than %d control groups", maxGroups)
	}
	if ref, ok := ParsePath(group); ok && ref.Path == group {
		if pid := w.first(group, depth); pid != 0 {
			w.out = append(w.out, Group{Ref: ref, PID: pid})
		}
		return nil // nested containers belong to this one
	}
	if depth >= maxDepth {
		return nil
	}
	return w.children(group, func(child string) error { return w.dir(child, depth+1) })
}

// first returns a process of the group or of a group below it.
func (w *walker) first(group string, depth int) int {
	if f, err := w.fs.Open(path.Join(w.root, group, "cgroup.procs")); err == nil {
		s := bufio.NewScanner(f)
		ok := s.Scan()
		pid, aerr := strconv.Atoi(s.Text())
		_ = f.Close()
		if ok && aerr == nil && pid > 0 {
			return pid
		}
	}
	found := 0
	if depth < maxDepth {
		_ = w.children(group, func(child string) error {
			if found == 0 {
				found = w.first(child, depth+1)
			}
			return nil
		})
	}
	return found
}

func (w *walker) children(group string, f func(string) error) error {
	entries, err := fs.ReadDir(w.fs, path.Join(w.root, group))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed while we walk
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		if e.IsDir() {
			if err := f(path.Join(group, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
