package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
)

func (a *app) userCommand() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "People and their roles"}
	c.AddCommand(a.userList(), a.userAdd(), a.userPasswd(), a.userDelete())
	return c
}

func (a *app) userList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List users", Args: cobra.NoArgs,
		Example: `  lazaret user list`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.User](c.Context(), client, api.Prefix+"/users", 0)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) {
					w.Row("NAME", "ROLES", "TENANTS", "CREATED")
					for _, u := range list {
						w.Row(u.Name, strings.Join(u.Roles, ","), strings.Join(u.Tenants, ","), short(u.Created))
					}
				})
			})
		},
	}
}

func (a *app) userAdd() *cobra.Command {
	var r api.UserRequest
	c := &cobra.Command{
		Use: "add NAME", Short: "Create a user", Args: cobra.ExactArgs(1),
		Long: `Create a user. Roles: platform (nodes, policies, scans, users), security
(findings, decisions, quarantine, signatures), auditor (reads everything, also
the audit log), owner (reads what belongs to the tenants). The password is asked
for, or read from standard input.`,
		Example: `  lazaret user add ada --role security
  lazaret user add otto --role owner --tenant shop <password.txt`,
		RunE: func(c *cobra.Command, args []string) error {
			r.Name = args[0]
			var err error
			if r.Password, err = a.password("Password for " + r.Name); err != nil {
				return err
			}
			return a.withClient(func(client *api.Client) error {
				var u api.User
				if err := client.Post(c.Context(), api.Prefix+"/users", r, &u); err != nil {
					return err
				}
				return a.print(u, func(w *output.Writer) { w.Line("user %s created (%s)", u.Name, strings.Join(u.Roles, ",")) })
			})
		},
	}
	c.Flags().StringSliceVar(&r.Roles, "role", nil, "role, may be repeated (required)")
	c.Flags().StringSliceVar(&r.Tenants, "tenant", nil, "tenant of an owner, may be repeated")
	must(c.MarkFlagRequired("role"))
	return c
}

func (a *app) userPasswd() *cobra.Command {
	return &cobra.Command{
		Use: "passwd NAME", Short: "Set a user's password", Args: cobra.ExactArgs(1),
		Example: `  lazaret user passwd ada`,
		RunE: func(c *cobra.Command, args []string) error {
			p, err := a.password("New password for " + args[0])
			if err != nil {
				return err
			}
			return a.withClient(func(client *api.Client) error {
				return client.Put(c.Context(), api.Prefix+"/users/"+escape(args[0]), api.UserRequest{Name: args[0], Password: p}, nil)
			})
		},
	}
}

func (a *app) userDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a user with sessions and tokens", Args: cobra.ExactArgs(1),
		Example: `  lazaret user delete otto`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				return client.Delete(c.Context(), api.Prefix+"/users/"+escape(args[0]))
			})
		},
	}
}

// password asks on a terminal without echo, or reads a line of input.
func (a *app) password(prompt string) (string, error) {
	if f, ok := a.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		fmt.Fprint(a.Stderr, prompt+": ")
		b, err := term.ReadPassword(int(f.Fd()))
		fmt.Fprintln(a.Stderr)
		if err != nil {
			return "", fmt.Errorf("reading password: %w", err)
		}
		return string(b), nil
	}
	s := bufio.NewScanner(a.Stdin)
	if !s.Scan() {
		return "", errors.New("no password on standard input")
	}
	return s.Text(), s.Err()
}

func (a *app) tokenCommand() *cobra.Command {
	c := &cobra.Command{Use: "token", Short: "API tokens for programs"}
	var user string
	c.PersistentFlags().StringVar(&user, "user", "", "another user's tokens")
	base := func() string {
		if user != "" {
			return api.Prefix + "/users/" + escape(user) + "/tokens"
		}
		return api.Prefix + "/tokens"
	}
	c.AddCommand(a.tokenCreate(base), &cobra.Command{
		Use: "list", Short: "List API tokens", Args: cobra.NoArgs,
		Example: `  lazaret token list
  lazaret token list --user ada`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.Token](c.Context(), client, base(), 0)
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
	}, &cobra.Command{
		Use: "delete ID", Short: "Delete an API token; it is refused from then on", Args: cobra.ExactArgs(1),
		Example: `  lazaret token delete 01JD5Z4M8K3V9Q2W7X6C1B0N5A`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error { return client.Delete(c.Context(), base()+"/"+escape(args[0])) })
		},
	})
	return c
}

func (a *app) tokenCreate(base func() string) *cobra.Command {
	var r api.TokenRequest
	c := &cobra.Command{
		Use: "create NAME", Short: "Create an API token and print it once", Args: cobra.ExactArgs(1),
		Example: `  lazaret token create ci --for 720h
  LAZARET_TOKEN=$(lazaret token create ci --user ada -o json | jq -r .secret)`,
		RunE: func(c *cobra.Command, args []string) error {
			r.Name = args[0]
			return a.withClient(func(client *api.Client) error {
				var t api.Token
				if err := client.Post(c.Context(), base(), r, &t); err != nil {
					return err
				}
				return a.print(t, func(w *output.Writer) { w.Line("%s", t.Secret) })
			})
		},
	}
	c.Flags().StringVar(&r.For, "for", "", "how long it is valid (default 2160h)")
	return c
}

func (a *app) loginCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use: "login", Short: "Log in and keep an API token for later commands", Args: cobra.NoArgs,
		Example: `  lazaret login --user ada --server https://manager:7480`,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.password("Password for " + user)
			if err != nil {
				return err
			}
			return a.withClient(func(client *api.Client) error { return a.login(c.Context(), client, user, p) })
		},
	}
	c.Flags().StringVar(&user, "user", "", "user name (required)")
	must(c.MarkFlagRequired("user"))
	return c
}

// login starts a session, makes a token with it and ends the session.
func (a *app) login(ctx context.Context, client *api.Client, user, password string) error {
	body, err := jsonBody(api.LoginRequest{Name: user, Password: password})
	if err != nil {
		return err
	}
	resp, err := client.Open(ctx, "POST", api.Prefix+"/sessions", body, api.Header("Content-Type", "application/json"))
	if err != nil {
		return err
	}
	resp.Body.Close()
	cookie := ""
	for _, k := range resp.Cookies() {
		cookie += k.Name + "=" + k.Value + "; "
	}
	session := api.Header("Cookie", strings.TrimSuffix(cookie, "; "))
	host, _ := os.Hostname()
	var t api.Token
	if err := client.Post(ctx, api.Prefix+"/tokens", api.TokenRequest{Name: "login on " + host, For: "720h"}, &t, session); err != nil {
		return err
	}
	if err := client.Delete(ctx, api.Prefix+"/sessions/current", session); err != nil {
		return err
	}
	file := a.credentials()
	if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
		return fmt.Errorf("storing credentials: %w", err)
	}
	if err := os.WriteFile(file, []byte(t.Secret+"\n"), 0o600); err != nil {
		return fmt.Errorf("storing credentials: %w", err)
	}
	a.say("logged in as %s until %s", user, short(t.Expires))
	return nil
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Forget the token that login stored", Args: cobra.NoArgs,
		Example: `  lazaret logout`,
		RunE: func(*cobra.Command, []string) error {
			if err := os.Remove(a.credentials()); err != nil && !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("removing credentials: %w", err)
			}
			return nil
		},
	}
}

func (a *app) setupCommand() *cobra.Command {
	var r api.SetupRequest
	c := &cobra.Command{
		Use: "setup TOKEN", Short: "Create the first user with the set-up link's token", Args: cobra.ExactArgs(1),
		Example: `  lazaret setup lzs_… --user ada`,
		RunE: func(c *cobra.Command, args []string) error {
			r.Token = args[0]
			var err error
			if r.Password, err = a.password("Password for " + r.Name); err != nil {
				return err
			}
			return a.withClient(func(client *api.Client) error {
				return client.Post(c.Context(), api.Prefix+"/setup", r, nil)
			})
		},
	}
	c.Flags().StringVar(&r.Name, "user", "", "user name (required)")
	must(c.MarkFlagRequired("user"))
	return c
}

func (a *app) setupLinkCommand() *cobra.Command {
	return &cobra.Command{
		Use: "setup-link", Short: "Make a new one-time link to create the first user (root on this host)", Args: cobra.NoArgs,
		Example: `  sudo lazaret setup-link`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withClient(func(client *api.Client) error {
				var l api.SetupLink
				if err := client.Post(c.Context(), api.Prefix+"/setup-link", nil, &l); err != nil {
					return err
				}
				return a.print(l, func(w *output.Writer) { w.Line("%s", l.URL) })
			})
		},
	}
}
