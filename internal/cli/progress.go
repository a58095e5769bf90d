package cli

import (
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/term"

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
	fmt.Fprintf(p.w, "\r\x1b[K%s", progressLine(s, path, time.Since(p.start), p.width()))
	p.drawn = true
}

// width is the number of columns of the terminal.
func (p *progress) width() int {
	if f, ok := p.w.(*os.File); ok {
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			return w
		}
	}
	return 80
}

// progressLine says what is done, how fast, how long it will take if the total
// is known, and, as far as it fits, where. It is shorter than width: a line
// that wraps could not be rewritten.
func progressLine(s *api.ScanSummary, path string, elapsed time.Duration, width int) string {
	seconds := max(elapsed.Seconds(), 0.001)
	rate := float64(s.Files) / seconds
	line := fmt.Sprintf("%d files", s.Files)
	if s.Total > s.Files {
		line = fmt.Sprintf("%d of %d files", s.Files, s.Total)
	}
	line += fmt.Sprintf(", %s, %.0f files/s", bytesText(s.Bytes), rate)
	if s.Total > s.Files && rate > 0 && elapsed > 2*time.Second {
		left := time.Duration(float64(s.Total-s.Files) / rate * float64(time.Second))
		line += fmt.Sprintf(", %s left", left.Round(time.Second))
	}
	line += fmt.Sprintf(", %d threats", s.Malicious+s.Suspicious)
	r := []rune(line)
	if room := width - len(r) - 3; path != "" && room >= 10 {
		tail := []rune(output.Clean(path))
		if len(tail) > room {
			tail = append([]rune{'…'}, tail[len(tail)-room+1:]...)
		}
		r = append(append(r, ' ', ' '), tail...)
	}
	if len(r) >= width && width > 1 {
		r = r[:width-1]
	}
	return string(r)
}

// hide removes the line before something else is printed.
func (p *progress) hide() {
	if p.drawn {
		fmt.Fprint(p.w, "\r\x1b[K")
		p.drawn = false
	}
}

func (p *progress) end() { p.hide() }
