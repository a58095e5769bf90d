package report

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// Update replaces the fragments of the run's parts in a Markdown file: what is
// between <!-- bench:NAME --> and <!-- /bench:NAME -->. Parts that were not run
// keep the figures they have. A missing pair of marks is an error.
func (r *Report) Update(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("updating %s: %w", path, err)
	}
	text := string(b)
	for _, p := range r.Parts {
		if text, err = replace(text, p.Name, r.markdown(p)); err != nil {
			return fmt.Errorf("updating %s: %w", path, err)
		}
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		return fmt.Errorf("updating %s: %w", path, err)
	}
	return nil
}

func replace(text, name, by string) (string, error) {
	begin, end := "<!-- bench:"+name+" -->\n", "<!-- /bench:"+name+" -->"
	before, rest, ok := strings.Cut(text, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", fmt.Errorf("there is no %q … %q", strings.TrimSpace(begin), end)
	}
	return before + begin + by + end + after, nil
}

func (r *Report) markdown(p *Part) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Measured %s on %s.\n\n", r.Started.UTC().Format(time.DateOnly), r.Machine.sentence())
	for _, s := range p.Setup {
		fmt.Fprintf(&b, "- %s\n", cell(s))
	}
	b.WriteString("\n| measurement | n | min | median | max | |\n|---|--:|--:|--:|--:|---|\n")
	for _, s := range p.Series {
		fmt.Fprintf(&b, "| %s | %d | %s | %s | %s | %s |\n", cell(s.Name), len(s.Values), number(s.Min()), number(s.Median()), number(s.Max()), s.Unit)
	}
	b.WriteString("\n| promise | ours | peer | ratio | limit | |\n|---|--:|--:|--:|--:|---|\n")
	for _, x := range p.Promises {
		peer, ratio, verdict := "", "", ""
		if x.Peer != 0 {
			peer, ratio = number(x.Peer)+" "+string(x.Unit), number(x.Ratio)
		}
		if !x.Published {
			verdict = x.verdict()
		}
		fmt.Fprintf(&b, "| %s | %s %s | %s | %s | %s | %s |\n", cell(x.Text), number(x.Ours), x.Unit, peer, ratio, x.limit(), verdict)
	}
	for _, s := range p.Notes {
		fmt.Fprintf(&b, "\n%s\n", s)
	}
	b.WriteString("\n<details><summary>Commands and raw values</summary>\n\n```\n")
	for _, s := range p.Series {
		fmt.Fprintf(&b, "%s\n  %s\n  %s:%s\n", s.Name, s.Command, s.Unit, values(s))
	}
	b.WriteString("```\n</details>\n")
	return b.String()
}

// cell keeps a text in one cell of a table.
func cell(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "|", "\\|"), "\n", " ")
}

// values lists what was measured, up to a number that a person looks at.
func values(s *Series) string {
	const enough = 40
	var b strings.Builder
	for i, v := range s.Values {
		if i == enough {
			fmt.Fprintf(&b, " … %d more", len(s.Values)-enough)
			break
		}
		b.WriteString(" " + number(v))
	}
	return b.String()
}
