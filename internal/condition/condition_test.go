package condition

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

func TestSet(t *testing.T) {
	t.Parallel()
	var s Set
	s.Raise(threat.Condition{Code: "b", Severity: threat.Low})
	s.Raise(threat.Condition{Code: "a", Severity: threat.High})
	s.Raise(threat.Condition{Code: "c", Severity: threat.Low})
	first := s.List()
	require.Equal(t, []string{"a", "b", "c"}, []string{first[0].Code, first[1].Code, first[2].Code})
	s.Raise(threat.Condition{Code: "b", Severity: threat.Low, Text: "again"})
	require.Equal(t, first[1].Since, s.List()[1].Since, "raising again keeps the first time")
	s.Clear("a")
	require.Len(t, s.List(), 2)
}
