package casework

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/response"
	"github.com/lazaret/lazaret/internal/threat"
)

// hanging responds to one workload only when it is let go, whatever its
// context says, as a look-up in a FUSE file system does.
type hanging struct {
	*fakeResponder
	gate chan struct{}
}

func (h *hanging) Apply(ctx context.Context, f threat.Finding, d policy.Decision, t response.Target) threat.Finding {
	if f.Workload.ID == "container/evil" {
		<-h.gate
	}
	return h.fakeResponder.Apply(ctx, f, d, t)
}

// TestHangingResponse: a container that makes responses hang holds up nobody
// else's, and its own findings wait for a person.
func TestHangingResponse(t *testing.T) {
	t.Parallel()
	s := newStand(t)
	h := &hanging{fakeResponder: s.responder, gate: make(chan struct{})}
	s.Responder, s.patience = h, 20*time.Millisecond
	s.run(t)
	for i := range 3 {
		c := newCase()
		c.Finding.Workload.ID, c.Finding.Object[1] = "container/evil", byte(i)
		require.NoError(t, s.Open(t.Context(), c))
	}
	require.NoError(t, s.Open(t.Context(), newCase()))
	state := map[string]threat.State{}
	require.Eventually(t, func() bool {
		for _, f := range s.next(t).Findings {
			state[f.Workload.ID+f.Object.String()] = f.State
		}
		waiting, contained := 0, 0
		for _, x := range state {
			switch x {
			case threat.Waiting:
				waiting++
			case threat.Contained:
				contained++
			}
		}
		return waiting == 3 && contained == 1
	}, 5*time.Second, 5*time.Millisecond, "%v", state)
	require.Equal(t, "response_hangs", s.conditions.List()[0].Code)
	close(h.gate)
	require.Eventually(t, func() bool { return len(s.conditions.List()) == 0 }, 5*time.Second, time.Millisecond)
	require.False(t, s.isStuck("container/evil", false))
}
