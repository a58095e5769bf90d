package store_test

import (
	"fmt"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/manager/store/storetest"
	"github.com/lazaret/lazaret/internal/threat"
)

func open(t testing.TB) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), filepath.Join(t.TempDir(), "manager.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestSQLite(t *testing.T) {
	t.Parallel()
	storetest.Run(t, func(t *testing.T) *store.Store { return open(t) })
}

func BenchmarkBatchOf100Findings(b *testing.B) {
	s := open(b)
	b.ReportAllocs()
	n := 0
	for b.Loop() {
		n++
		err := s.Update(b.Context(), func(tx *store.Tx) error {
			for i := range 100 {
				f := threat.Finding{ID: fmt.Sprintf("F%d-%d", n, i), Node: "n1", State: threat.Open, Severity: threat.High}
				if _, err := tx.PutFinding(b.Context(), "B", f); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
