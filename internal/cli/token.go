package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
)

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "API tokens for programs", Example: `  lazaret token list`}
	var user string
	c.PersistentFlags().StringVar(&user, "user", "", "another user's tokens")
	with := func(f func(client *api.Client, base string) error) error {
		return a.withTokens(user, f)
	}
	c.AddCommand(a.tokenCreate(with), a.tokenList(with), a.tokenDelete(with))
	return c
}

// withTokens runs f with the path of the tokens of a user, "" for the caller's
// own.
func (a *app) withTokens(user string, f func(client *api.Client, base string) error) error {
	cc, err := a.address()
	if err != nil {
		return err
	}
	token, err := a.token(cc)
	if err != nil {
		return err
	}
	base := api.Prefix + "/tokens"
	switch {
	case user != "":
		base = api.Prefix + "/users/" + escape(user) + "/tokens"
	case token == "" && cc.Socket != "":
		return usageError{errors.New("nobody is logged in here: name a user with --user (as root), or log in")}
	}
	return a.withClient(func(client *api.Client) error { return f(client, base) })
}

type withTokens func(f func(client *api.Client, base string) error) error

func (a *app) tokenList(with withTokens) *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List API tokens", Args: cobra.NoArgs,
		Example: `  lazaret token list
  lazaret token list --user ada`,
		RunE: func(c *cobra.Command, _ []string) error {
			return with(func(client *api.Client, base string) error {
				list, err := collect[api.Token](c.Context(), client, base, 0)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("ID", "NAME", "USER", "CREATED", "EXPIRES")
					for _, t := range list {
						w.Row(t.ID, t.Name, t.User, short(t.Created), short(t.Expires))
					}
				})
			})
		},
	}
}

func (a *app) tokenDelete(with withTokens) *cobra.Command {
	return &cobra.Command{
		Use: "delete ID", Short: "Delete an API token; it is refused from then on", Args: cobra.ExactArgs(1),
		Example: `  lazaret token delete 01JD5Z4M8K3V9Q2W7X6C1B0N5A`,
		RunE: func(c *cobra.Command, args []string) error {
			return with(func(client *api.Client, base string) error {
				return client.Delete(c.Context(), base+"/"+escape(args[0]))
			})
		},
	}
}

func (a *app) tokenCreate(with withTokens) *cobra.Command {
	var r api.TokenRequest
	c := &cobra.Command{
		Use: "create NAME", Short: "Create an API token and print it once", Args: cobra.ExactArgs(1),
		Long: `Create an API token. Whoever has it can do what its user can do; only this
answer ever contains it. Root on the manager's host can create one for anybody.`,
		Example: `  lazaret token create ci --for 720h
  LAZARET_TOKEN=$(sudo lazaret token create ci --user ada -o json | jq -r .secret)`,
		RunE: func(c *cobra.Command, args []string) error {
			r.Name = args[0]
			return with(func(client *api.Client, base string) error {
				var t api.Token
				if err := client.Post(c.Context(), base, r, &t); err != nil {
					return err
				}
				return a.print(t, func(w *output.Writer) { w.Line("%s", t.Secret) })
			})
		},
	}
	c.Flags().StringVar(&r.For, "for", "", "how long it is valid (default 2160h)")
	return c
}
