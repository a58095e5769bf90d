package guard

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/internal/event"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

// slowCases stores nothing before it is let go, as a disk under a flood of
// findings.
type slowCases struct {
	fakeCases
	block chan struct{}
}

func (s *slowCases) Open(ctx context.Context, c Case) error {
	<-s.block
	return s.fakeCases.Open(ctx, c)
}

// TestSlowRecordDenies: an answer after the driver's deadline would be its fail
// mode, open by default, for a file that is known to be malicious.
func TestSlowRecordDenies(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	slow := &slowCases{block: make(chan struct{})}
	s.Cases = slow
	s.scans.report = report(threat.Malicious, threat.High)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.Equal(t, deny, s.Access(ctx, file(t, event.Open)))
	require.NoError(t, ctx.Err(), "the answer came too late to count")
	close(slow.block)
	require.Eventually(t, func() bool {
		slow.mu.Lock()
		defer slow.mu.Unlock()
		return len(slow.all) == 1
	}, 5*time.Second, time.Millisecond, "the finding is stored all the same")
}

// TestManyRecordsDeny: when no record can begin any more, denials go on.
func TestManyRecordsDeny(t *testing.T) {
	t.Parallel()
	s := newStand(t, nil)
	for range maxBooks {
		s.books <- struct{}{}
	}
	s.scans.report = report(threat.Malicious, threat.High)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	require.Equal(t, deny, s.Access(ctx, file(t, event.Open)))
	require.NoError(t, ctx.Err())
	require.Equal(t, "finding_not_recorded", s.conditions.List()[0].Code)
}

// TestClosedBeforeDriver: a policy that fails closed answers before the
// driver's own deadline, which fails open.
func TestClosedBeforeDriver(t *testing.T) {
	t.Parallel()
	s := newStand(t, func(p *policy.Spec) { p.FailMode = policy.FailClosed })
	s.scans.block = make(chan struct{})
	defer close(s.scans.block)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	require.Equal(t, deny, s.Access(ctx, file(t, event.Exec)))
	require.NoError(t, ctx.Err(), "the answer came too late to count")
}

// TestLateThreat: what was let through because its inspection took too long is
// a finding once it is known to be malicious.
func TestLateThreat(t *testing.T) {
	t.Parallel()
	s := newStand(t, func(p *policy.Spec) { p.Deadline = 10 * time.Millisecond })
	s.scans.block = make(chan struct{})
	s.scans.report = report(threat.Malicious, threat.High)
	require.Equal(t, allow, s.Access(t.Context(), file(t, event.Exec)))
	close(s.scans.block)
	require.Eventually(t, func() bool {
		s.cases.mu.Lock()
		defer s.cases.mu.Unlock()
		return len(s.cases.all) == 1
	}, 5*time.Second, time.Millisecond)
	require.Contains(t, s.cases.all[0].Decision.Why, tooLate)
}

// TestReusedPID: the pid of a writer that has ended may be another process's.
func TestReusedPID(t *testing.T) {
	t.Parallel()
	cmd := exec.Command("/bin/true")
	require.NoError(t, cmd.Start())
	pidfd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	require.NoError(t, err)
	defer unix.Close(pidfd)
	require.NoError(t, cmd.Wait())

	s := newStand(t, nil)
	s.scans.report = report(threat.Malicious, threat.High)
	ev := file(t, event.Write)
	ev.PID, ev.PIDFD = 1, pidfd // process 1, of the host, has the number now
	s.Written(t.Context(), ev)
	require.Len(t, s.cases.all, 1)
	require.Equal(t, "container/c1", s.cases.all[0].Finding.Workload.ID, "the file's owner, not the innocent's")
	require.Nil(t, s.cases.all[0].Finding.Process, "and nobody is killed for it")
	require.Zero(t, s.cases.all[0].PID)
}
