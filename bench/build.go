package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/bench/report"
)

// build measures a developer's build: a change in a package that most others
// import, then go build. Compiler, linker, sources, modules, build cache and
// temporary files are all on the file system that is measured.
func build(ctx context.Context, l *lab) (*report.Part, error) {
	p := &report.Part{Name: "build", Title: "a Go build"}
	p.Describe("One file of a package that most others import changes before each build of cmd/lazaret; compiler, linker, sources, vendored modules, build cache and temporary files are on the measured file system (%s). Each build is done on the protected and on the other file system in turn, after two to warm up.", l.medium())
	places := map[string]*workshop{}
	for _, name := range []string{"guarded", "free"} {
		fs, err := l.fileSystem(ctx, name, 3<<30)
		if err != nil {
			return nil, err
		}
		if places[name], err = l.workshop(ctx, fs); err != nil {
			return nil, err
		}
	}
	d, err := l.daemon(ctx, places["guarded"].dir)
	if err != nil {
		return nil, err
	}
	command := "go build -o out ./cmd/lazaret"
	guarded := p.Add("build, protected", command, report.Seconds)
	free := p.Add("build, not protected", command, report.Seconds)
	service := p.Add("processor time of Lazaret for one build", "", report.Seconds)
	for n := range l.times(9) + 2 {
		warm := n >= 2
		order := []string{"guarded", "free"}
		if n%2 == 1 {
			order = []string{"free", "guarded"}
		}
		for _, name := range order {
			if err := d.idle(ctx); err != nil {
				return nil, err
			}
			before, err := busy(d.cmd.Process.Pid)
			if err != nil {
				return nil, err
			}
			took, err := places[name].build(ctx, n)
			if err != nil {
				return nil, err
			}
			switch {
			case !warm:
			case name == "free":
				free.AddTime(took)
			default:
				guarded.AddTime(took)
				err := d.idle(ctx)
				after, err2 := busy(d.cmd.Process.Pid)
				if err := errors.Join(err, err2); err != nil {
					return nil, err
				}
				service.AddTime(after - before)
			}
		}
	}
	p.Promise(report.AtMost("a build, protected against not protected", guarded, free, 1.05))
	p.Note("Written files are inspected in the background; the processor time counts that too, until the service is idle again.")
	return p, nil
}

// workshop is a place with all that a build needs.
type workshop struct{ dir string }

func (l *lab) workshop(ctx context.Context, fs string) (*workshop, error) {
	w := &workshop{fs}
	for _, dir := range []string{"go", "src", "cache", "tmp", "home"} {
		if err := os.MkdirAll(filepath.Join(fs, dir), 0o755); err != nil {
			return nil, fmt.Errorf("preparing a build: %w", err)
		}
	}
	for _, name := range []string{"bin", "pkg", "src", "lib", "VERSION", "go.env"} {
		if _, err := output(ctx, "cp", "-a", filepath.Join(l.goroot, name), filepath.Join(fs, "go")); err != nil {
			return nil, err
		}
	}
	for _, name := range []string{"go.mod", "go.sum", "api", "cmd", "internal", "bench"} {
		if _, err := output(ctx, "cp", "-a", filepath.Join(l.root, name), filepath.Join(fs, "src")); err != nil {
			return nil, err
		}
	}
	c := exec.CommandContext(ctx, "go", "mod", "vendor")
	c.Dir = filepath.Join(fs, "src")
	return w, quiet(c)
}

func (w *workshop) build(ctx context.Context, n int) (took time.Duration, err error) {
	changed := fmt.Sprintf("package threat\n\nconst buildNumber = %d\n", n)
	if err := os.WriteFile(filepath.Join(w.dir, "src/internal/threat/build_number.go"), []byte(changed), 0o644); err != nil {
		return 0, fmt.Errorf("changing a file: %w", err)
	}
	unix.Sync()
	c := exec.CommandContext(ctx, filepath.Join(w.dir, "go/bin/go"), "build", "-mod=vendor", "-o", filepath.Join(w.dir, "out"), "./cmd/lazaret")
	c.Dir = filepath.Join(w.dir, "src")
	c.Env = []string{
		"GOROOT=" + filepath.Join(w.dir, "go"), "GOCACHE=" + filepath.Join(w.dir, "cache"), "GOTMPDIR=" + filepath.Join(w.dir, "tmp"),
		"HOME=" + filepath.Join(w.dir, "home"), "PATH=" + filepath.Join(w.dir, "go/bin") + ":/usr/bin:/bin",
		"GOFLAGS=", "GOPROXY=off", "GOTOOLCHAIN=local", "CGO_ENABLED=0", "GOTELEMETRY=off",
	}
	return timed(c)
}
