package cli

import (
	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/internal/cli/output"
)

// words are the values of flags that take one of a few.
var words = map[string][]string{
	"output":   append(output.Formats[:len(output.Formats):len(output.Formats)], string(output.SARIF)),
	"severity": {"informational", "low", "medium", "high", "critical"},
	"priority": {"on-demand", "scheduled"},
	"fail-on":  {"suspicious", "malicious"},
	"role":     {"platform", "security", "auditor", "owner"},
	"kind":     {"host", "container", "vm"},
}

// complete lets the shell offer the values of flags.
func complete(c *cobra.Command) {
	for flag, values := range words {
		if c.Flags().Lookup(flag) != nil || c.PersistentFlags().Lookup(flag) != nil {
			must(c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp)))
		}
	}
	for _, sub := range c.Commands() {
		complete(sub)
	}
}
