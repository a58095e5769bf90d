package signature

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestMain also is the program that TestKill kills: it publishes bundles until
// it dies.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LAZARET_TEST_PUBLISH"); dir != "" {
		if err := publishForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

func publishForever(dir string) error {
	r, err := OpenRepository(RepositoryConfig{Dir: dir, Keep: 3})
	if err != nil {
		return err
	}
	for {
		next := uint64(1)
		if a := r.Active(); a != nil {
			next = uint64(a.Epoch) + 1
		}
		s, err := r.Stage(context.Background(), "a.yar", KindYARA, strings.NewReader(fmt.Sprint("bundle ", next)))
		if err != nil {
			return err
		}
		b, err := r.Publish(context.Background(), Draft{By: "user:test", Sources: []Source{s}})
		if err != nil {
			return err
		}
		fmt.Println(b.Epoch) // acknowledged
	}
}

// A process that publishes is killed at random moments. What it acknowledged
// is there afterwards, and a client that follows never sees anything wrong.
func TestKill(t *testing.T) {
	t.Parallel()
	dir, node := t.TempDir(), t.TempDir()
	var acknowledged uint64
	for range 12 {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), "LAZARET_TEST_PUBLISH="+dir)
		var out, errors strings.Builder
		cmd.Stdout, cmd.Stderr = &out, &errors
		require.NoError(t, cmd.Start())
		time.Sleep(20*time.Millisecond + rand.N(150*time.Millisecond))
		require.NoError(t, cmd.Process.Kill())
		require.ErrorContains(t, cmd.Wait(), "killed", errors.String())
		for line := range strings.Lines(out.String()) {
			_, err := fmt.Sscan(line, &acknowledged)
			require.NoError(t, err)
		}
		r, err := OpenRepository(RepositoryConfig{Dir: dir, Keep: 3})
		require.NoError(t, err)
		active := r.Active()
		if acknowledged > 0 {
			require.NotNil(t, active)
			require.GreaterOrEqual(t, uint64(active.Epoch), acknowledged)
			require.Equal(t, fmt.Sprint("bundle ", active.Epoch), textOf(t, r.blobs, active))
			c := clientFor(t, node, serve(t, r), nil)
			epoch, _, err := c.Update(t.Context())
			require.NoError(t, err)
			require.Equal(t, active.Epoch, epoch)
		}
		require.NoError(t, r.Close())
	}
	require.Positive(t, acknowledged)
}
