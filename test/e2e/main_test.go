//go:build privileged

package e2e

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/lazaret/lazaret/internal/driver/loopfs"
)

// envPrograms names the directory with the programs that TestMain built.
const envPrograms = "LAZARET_TEST_PROGRAMS"

func TestMain(m *testing.M) {
	if os.Getenv(envPrograms) != "" { // the second start, in the private mount name space
		os.Exit(loopfs.Main(m))
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "lzb")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, "building the programs:", err)
		return 1
	}
	if err := os.Setenv(envPrograms, dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return loopfs.Main(m)
}

// build makes the three programs. The engine is linked statically where the
// library is there for it.
func build(dir string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := compile(ctx, dir, "lazaret", "0", "../../cmd/lazaret"); err != nil {
		return err
	}
	if err := compile(ctx, dir, "actor", "0", "./actor"); err != nil {
		return err
	}
	if compile(ctx, dir, "lazaret-engine", "1", "-tags", "yara_static,osusergo,netgo", "../../cmd/lazaret-engine") == nil {
		return nil
	}
	return compile(ctx, dir, "lazaret-engine", "1", "../../cmd/lazaret-engine")
}

func compile(ctx context.Context, dir, name, cgo string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", append([]string{"build", "-o", filepath.Join(dir, name)}, args...)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w\n%s", name, err, out)
	}
	return nil
}

// program returns the path of a built program.
func program(name string) string { return filepath.Join(os.Getenv(envPrograms), name) }
