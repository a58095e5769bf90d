package cli

import (
	"fmt"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// name is what people call a workload.
func name(w threat.Workload) string {
	if w.Name != "" {
		return w.Name
	}
	return w.ID
}

// short is a time for tables, to the second.
func short(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.UTC().Format("2006-01-02T15:04:05Z")
}

// bytesText is a number of bytes with a unit.
func bytesText(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/unit, 0
	for f >= unit && i < 4 {
		f /= unit
		i++
	}
	return fmt.Sprintf("%.1f %ciB", f, "KMGTP"[i])
}
