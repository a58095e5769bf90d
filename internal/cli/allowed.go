package cli

import (
	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
)

func (a *app) allowedCommand() *cobra.Command {
	c := &cobra.Command{
		Use: "allowed", Short: "Objects that people declared harmless, for a time",
		Example: `  lazaret allowed list`,
	}
	c.AddCommand(a.allowedList(), a.allowedDelete())
	return c
}

func (a *app) allowedList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List allowed objects with reason and expiry", Args: cobra.NoArgs,
		Example: `  lazaret allowed list`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.AllowedObject](c.Context(), client, api.Prefix+"/allowed", 0)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("SHA-256", "EXPIRES", "BY", "REASON")
					for _, o := range list {
						w.Row(o.Hash, short(o.Expires), o.By, o.Reason)
					}
				})
			})
		},
	}
}

func (a *app) allowedDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete SHA256", Short: "Withdraw an object's permission; it is stopped again", Args: cobra.ExactArgs(1),
		Example: `  lazaret allowed delete 275a021bbfb6489e54d471899f7db9d1663fc695ec2fe2a2c4538aabf651fd0f`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				return client.Delete(c.Context(), api.Prefix+"/allowed/"+escape(args[0]))
			})
		},
	}
}
