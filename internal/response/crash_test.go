package response

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

// The crash tests run this test program as a child that works on a vault and
// is killed with SIGKILL. The tree has files 0, 1, …; file i holds crashContent(i),
// so that whatever happens one can tell which file is where. Files of the same
// parity share their content to exercise deduplication.

func crashContent(i int) string { return strings.Repeat(fmt.Sprintf("file %d ", i%4), 2000) }

// crashChild runs the script that LAZARET_CRASH_SCRIPT names and kills itself
// at the step LAZARET_CRASH_STEP (0: never).
func crashChild() int {
	dir := os.Getenv("LAZARET_CRASH_DIR")
	stop, err := strconv.Atoi(os.Getenv("LAZARET_CRASH_STEP"))
	if err != nil {
		return 9
	}
	v, err := OpenVault(context.Background(), VaultConfig{Dir: filepath.Join(dir, "state"), Reserve: -1})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 9
	}
	v.named = os.Getenv("LAZARET_CRASH_NAMED") != ""
	n := 0
	v.step = func(string) {
		if n++; n == stop {
			syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}
	if _, err = v.Recover(context.Background()); err == nil {
		fmt.Println("ready")
		switch script := os.Getenv("LAZARET_CRASH_SCRIPT"); script {
		case "once":
			err = crashOnce(v, dir)
		default:
			err = crashRandom(v, dir, script)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 8
	}
	return 0
}

func crashPath(dir string, i int) string { return filepath.Join(dir, "files", strconv.Itoa(i)) }

// crashOnce does each operation once, in an order that shares blobs.
func crashOnce(v *Vault, dir string) error {
	a, err := quarantine(v, crashPath(dir, 0), threat.Hash{})
	if err != nil {
		return err
	}
	fmt.Println(phaseHeld, a.ID)
	b, err := quarantine(v, crashPath(dir, 4), threat.Hash{}) // same content
	if err != nil {
		return err
	}
	if err := os.WriteFile(crashPath(dir, 0), []byte(crashContent(3)), 0o600); err != nil {
		return err
	}
	if _, err := restore(v, a.ID, crashPath(dir, 0)); err != nil { // the name is taken
		return err
	}
	fmt.Println(phaseRestored, a.ID)
	if _, err := restore(v, b.ID, crashPath(dir, 4)); err != nil {
		return err
	}
	fmt.Println(phaseRestored, b.ID)
	if a, err = quarantine(v, crashPath(dir, 1), threat.Hash{}); err != nil {
		return err
	}
	if _, err := v.Purge(context.Background(), a.ID); err != nil {
		return err
	}
	fmt.Println(phasePurged, a.ID)
	o, err := OpenOriginal(Target{Path: crashPath(dir, 2)})
	if err != nil {
		return err
	}
	defer o.Close()
	_, err = v.Delete(context.Background(), o, Meta{})
	return err
}

// crashRandom quarantines and restores files of the tree until it is killed.
func crashRandom(v *Vault, dir, seed string) error {
	s, err := strconv.ParseUint(seed, 10, 64)
	if err != nil {
		return err
	}
	random := rand.New(rand.NewPCG(s, 0))
	for range 100 {
		i := random.IntN(crashFiles)
		item, err := v.ByFinding(context.Background(), "f-"+strconv.Itoa(i))
		switch {
		case err == nil:
			if _, err = restore(v, item.ID, crashPath(dir, i)); err == nil {
				fmt.Println(phaseRestored, item.ID)
			}
		case errors.Is(err, ErrNoItem):
			if item, err = quarantine(v, crashPath(dir, i), threat.Hash{}); err == nil {
				fmt.Println(phaseHeld, item.ID)
			}
		}
		if err != nil {
			return fmt.Errorf("file %d: %w", i, err)
		}
	}
	return nil
}

const crashFiles = 8

func crashTree(t testing.TB, dir string) {
	require.NoError(t, os.Mkdir(filepath.Join(dir, "files"), 0o700))
	for i := range crashFiles {
		writeFile(t, crashPath(dir, i), crashContent(i))
	}
}

func crashCommand(dir, script string, step int, named bool) *exec.Cmd {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "LAZARET_CRASH_DIR="+dir, "LAZARET_CRASH_SCRIPT="+script, "LAZARET_CRASH_STEP="+strconv.Itoa(step))
	if named {
		cmd.Env = append(cmd.Env, "LAZARET_CRASH_NAMED=1")
	}
	cmd.Stderr = os.Stderr
	return cmd
}

func killed(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	status, ok := exit.Sys().(syscall.WaitStatus)
	return ok && status.Signaled() && status.Signal() == syscall.SIGKILL
}

// holdings counts, per content, the files in the tree and the items that are
// held, after recovery, and checks that nothing is half-done and that what was
// acknowledged is recorded.
func holdings(t testing.TB, dir string, said map[string]string) (files, held map[string]int, purged int) {
	v, err := OpenVault(context.Background(), VaultConfig{Dir: filepath.Join(dir, "state"), Reserve: -1})
	require.NoError(t, err)
	defer v.Close()
	_, err = v.Recover(context.Background())
	require.NoError(t, err)
	files, held = map[string]int{}, map[string]int{}
	entries, err := os.ReadDir(filepath.Join(dir, "files"))
	require.NoError(t, err)
	for _, e := range entries {
		require.False(t, strings.HasPrefix(e.Name(), "."), "unfinished file %s", e.Name())
		b, err := os.ReadFile(filepath.Join(dir, "files", e.Name()))
		require.NoError(t, err)
		files[string(b)]++
	}
	items, err := v.query(context.Background(), "phase <> '"+phaseRestored+"' AND phase <> '"+phasePurged+"'")
	require.NoError(t, err)
	objects := map[threat.Hash]bool{}
	for _, item := range items {
		require.Equal(t, phaseHeld, item.phase, "item %s after recovery", item.ID)
		objects[item.Object] = true
		held[readItem(t, v, item.ID)]++
	}
	require.Len(t, blobs(t, v), len(objects), "one blob per object that is held, nothing else")
	for id, phase := range said {
		item, err := v.Get(context.Background(), id)
		require.NoError(t, err, "a record that was acknowledged as %s", phase)
		// What came after the acknowledgement may be done as well.
		require.True(t, item.phase == phase || phase == phaseHeld && item.phase != phaseStoring, "%s is %s, was %s", id, item.phase, phase)
	}
	gone, err := v.query(context.Background(), "phase = '"+phasePurged+"'")
	require.NoError(t, err)
	return files, held, len(gone)
}

// acknowledged reads what a child said it had done.
func acknowledged(out []byte) map[string]string {
	said := map[string]string{}
	lines := strings.Split(string(out), "\n")
	for _, line := range lines[:len(lines)-1] { // the last may be cut off
		if phase, id, ok := strings.Cut(line, " "); ok {
			said[id] = phase
		}
	}
	return said
}

// A crash at each single step of each operation loses nothing and leaves
// nothing behind.
func TestCrashAtEveryStep(t *testing.T) {
	t.Parallel()
	t.Run("unnamed", func(t *testing.T) { crashAtEveryStep(t, false) })
	t.Run("named", func(t *testing.T) { crashAtEveryStep(t, true) })
}

func crashAtEveryStep(t *testing.T, named bool) {
	t.Parallel()
	for step := 1; ; step++ {
		dir := realTempDir(t)
		crashTree(t, dir)
		out, err := crashCommand(dir, "once", step, named).Output()
		if err != nil {
			require.True(t, killed(err), "step %d: %v", step, err)
		}
		said := acknowledged(out)
		files, held, purged := holdings(t, dir, said)
		total := func(i int) int { return files[crashContent(i)] + held[crashContent(i)] }
		// 0 and 4, and the two that are never touched, exist exactly once each.
		require.Equal(t, 2, total(0), "step %d", step)
		require.GreaterOrEqual(t, total(3), 2, "step %d", step)
		require.LessOrEqual(t, total(3), 3, "step %d: the newer file 0", step)
		// One of 1 and 5 may have been purged, which its record says; one of 2 and
		// 6 deleted.
		require.Equal(t, 2, total(1)+purged, "step %d", step)
		require.GreaterOrEqual(t, total(2), 1, "step %d", step)
		if err == nil {
			require.Greater(t, step, 60, "the script has that many steps")
			require.Equal(t, 1, total(2))
			require.Equal(t, 1, total(1))
			require.Empty(t, held)
			require.Len(t, said, 3, "three items were acknowledged at their end")
			return
		}
	}
}
