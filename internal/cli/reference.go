package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func (a *app) completionCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a completion script for bash, zsh, fish or powershell",
		Args: cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs), ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Example: `  lazaret completion bash >/etc/bash_completion.d/lazaret
  lazaret completion zsh >"${fpath[1]}/_lazaret"`,
		RunE: func(_ *cobra.Command, args []string) error {
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(a.Stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.Stdout)
			case "fish":
				return root.GenFishCompletion(a.Stdout, true)
			}
			return root.GenPowerShellCompletionWithDesc(a.Stdout)
		},
	}
}

func (a *app) manCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "man DIR", Short: "Write the manual pages into a directory", Args: cobra.ExactArgs(1),
		Example: `  lazaret man /usr/local/share/man/man1`,
		RunE: func(_ *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return fmt.Errorf("writing manual pages: %w", err)
			}
			// A fixed date keeps the pages of one version the same everywhere.
			date := time.Unix(0, 0).UTC()
			header := &doc.GenManHeader{Title: "LAZARET", Section: "1", Source: "Lazaret " + a.Version, Manual: "Lazaret", Date: &date}
			return doc.GenManTree(undated(root), header, args[0])
		},
	}
}

// docsCommand writes the reference under docs/cli; it is for this project.
func (a *app) docsCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{
		Use: "docs DIR", Short: "Write the command reference as Markdown", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(_ *cobra.Command, args []string) error { return WriteDocs(root, args[0]) },
	}
}

// WriteDocs writes one Markdown page per command into dir.
func WriteDocs(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("writing command reference: %w", err)
	}
	return doc.GenMarkdownTree(undated(root), dir)
}

// undated leaves out the line that says when a page was generated.
func undated(c *cobra.Command) *cobra.Command {
	c.DisableAutoGenTag = true
	for _, sub := range c.Commands() {
		if !strings.HasPrefix(sub.Use, "help") {
			undated(sub)
		}
	}
	return c
}
