//go:build privileged

package response

import (
	"bufio"
	"io"
	"math/rand/v2"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A thousand kills at random points of quarantine, restore and recovery lose
// no file and no record. Half of them come at a random step, half at a random
// time from outside.
func TestThousandRandomKills(t *testing.T) {
	dir := realTempDir(t)
	crashTree(t, dir)
	random := rand.New(rand.NewPCG(1, 2))
	start, kills := time.Now(), 0
	said, all := map[string]string{}, map[string]string{} // since the last look, since ever
	for kills < 1000 {
		step := 0
		if kills%2 == 0 {
			step = 1 + random.IntN(60)
		}
		cmd := crashCommand(dir, strconv.Itoa(kills), step, kills%4 < 2)
		out, err := cmd.StdoutPipe()
		require.NoError(t, err)
		require.NoError(t, cmd.Start())
		r := bufio.NewReader(out)
		if step == 0 {
			_, err := r.ReadString('\n') // ready
			require.NoError(t, err)
			time.Sleep(time.Duration(random.IntN(15_000)) * time.Microsecond)
			require.NoError(t, cmd.Process.Signal(syscall.SIGKILL))
		}
		text, err := io.ReadAll(r)
		require.NoError(t, err)
		for id, phase := range acknowledged(text) {
			said[id], all[id] = phase, phase
		}
		err = cmd.Wait()
		if err == nil {
			continue // it ended before its step came
		}
		require.True(t, killed(err), "kill %d: %v", kills, err)
		kills++
		files, held, _ := holdings(t, dir, said)
		clear(said)
		for i := range 4 {
			require.Equal(t, crashFiles/4, files[crashContent(i)]+held[crashContent(i)], "kill %d, content %d", kills, i)
		}
	}
	holdings(t, dir, all)
	t.Logf("1000 kills in %s, %d items", time.Since(start), len(all))
}
