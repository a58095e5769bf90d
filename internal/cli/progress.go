package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
)

// progress draws one line that is rewritten: what is done, how fast, where.
type progress struct {
	w     io.Writer
	on    bool
	drawn bool
	start time.Time
}

func newProgress(w io.Writer, on bool) *progress {
	return &progress{w: w, on: on, start: time.Now()}
}

func (p *progress) update(s *api.ScanSummary, path string) {
	if !p.on || s == nil {
		return
	}
	seconds := max(time.Since(p.start).Seconds(), 0.001)
	line := fmt.Sprintf("%d files, %s, %.0f files/s, %d threats", s.Files, bytesText(s.Bytes), float64(s.Files)/seconds, s.Malicious+s.Suspicious)
	if path != "" {
		path = output.Clean(path)
		if r := []rune(path); len(r) > 50 {
			path = "…" + string(r[len(r)-49:])
		}
		line += "  " + path
	}
	fmt.Fprintf(p.w, "\r\x1b[K%s", line)
	p.drawn = true
}

// hide removes the line before something else is printed.
func (p *progress) hide() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func (p *progress) end() { p.hide() }

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
