package cli

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
)

func (a *app) userCommand() *cobra.Command {
	c := &cobra.Command{Use: "user", Short: "People and their roles", Example: `  lazaret user list`}
	c.AddCommand(a.userList(), a.userAdd(), a.userSet(), a.userPasswd(), a.userDelete())
	return c
}

const rolesHelp = `Roles: platform (nodes, policies, scans, users), security (findings, decisions,
quarantine, signatures, scans), auditor (reads everything, also the audit log),
owner (reads what belongs to the tenants).`

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

func roleFlags(c *cobra.Command, r *api.UserRequest) {
	c.Flags().StringSliceVar(&r.Roles, "role", nil, "role, may be repeated (required)")
	c.Flags().StringSliceVar(&r.Tenants, "tenant", nil, "tenant of an owner, may be repeated")
	must(c.MarkFlagRequired("role"))
}

func drawUser(w *output.Writer, u *api.User) {
	text := u.Name + " is " + strings.Join(u.Roles, ", ")
	if len(u.Tenants) > 0 {
		text += " of " + strings.Join(u.Tenants, ", ")
	}
	w.Line("%s", text)
}

func (a *app) userAdd() *cobra.Command {
	var r api.UserRequest
	c := &cobra.Command{
		Use: "add NAME", Short: "Create a user", Args: cobra.ExactArgs(1),
		Long: "Create a user.\n\n" + rolesHelp + `

The password is asked for, or read from standard input.`,
		Example: `  lazaret user add ada --role security
  lazaret user add otto --role owner --tenant shop <password.txt`,
		RunE: func(c *cobra.Command, args []string) error {
			r.Name = args[0]
			var err error
			if r.Password, err = a.newPassword(r.Name); err != nil {
				return err
			}
			return a.withClient(func(client *api.Client) error {
				var u api.User
				if err := client.Post(c.Context(), api.Prefix+"/users", r, &u); err != nil {
					return err
				}
				return a.print(u, func(w *output.Writer) { drawUser(w, &u) })
			})
		},
	}
	roleFlags(c, &r)
	return c
}

func (a *app) userSet() *cobra.Command {
	var r api.UserRequest
	c := &cobra.Command{
		Use: "set NAME", Short: "Change a user's roles and tenants", Args: cobra.ExactArgs(1),
		Long: "Change a user's roles and tenants; what is not named is taken away.\n\n" + rolesHelp + `

Nobody changes their own roles.`,
		Example: `  lazaret user set ada --role security --role auditor
  lazaret user set otto --role owner --tenant shop --tenant blog`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var u api.User
				if err := client.Put(c.Context(), api.Prefix+"/users/"+escape(args[0]), withName(r, args[0]), &u); err != nil {
					return err
				}
				return a.print(u, func(w *output.Writer) { drawUser(w, &u) })
			})
		},
	}
	roleFlags(c, &r)
	return c
}

func withName(r api.UserRequest, name string) api.UserRequest {
	r.Name = name
	return r
}

func (a *app) userPasswd() *cobra.Command {
	return &cobra.Command{
		Use: "passwd [NAME]", Short: "Change your own password, or set a user's", Args: cobra.MaximumNArgs(1),
		Long: `Without NAME change your own password: the old and the new one are asked for, or
read from standard input, a line each. With NAME set another user's.`,
		Example: `  lazaret user passwd
  sudo lazaret user passwd ada`,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 1 {
				p, err := a.newPassword(args[0])
				if err != nil {
					return err
				}
				return a.withClient(func(client *api.Client) error {
					return client.Put(c.Context(), api.Prefix+"/users/"+escape(args[0]), api.UserRequest{Name: args[0], Password: p}, nil)
				})
			}
			old, err := a.password("Old password")
			if err != nil {
				return err
			}
			p, err := a.newPassword("you")
			if err != nil {
				return err
			}
			return a.withClient(func(client *api.Client) error {
				return client.Put(c.Context(), api.Prefix+"/me/password", api.PasswordRequest{Old: old, New: p}, nil)
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
	if a.lines == nil {
		a.lines = bufio.NewScanner(a.Stdin)
	}
	if !a.lines.Scan() {
		if err := a.lines.Err(); err != nil {
			return "", fmt.Errorf("reading password: %w", err)
		}
		return "", errors.New("no password on standard input")
	}
	return a.lines.Text(), nil
}

// newPassword is password, asked for twice on a terminal.
func (a *app) newPassword(who string) (string, error) {
	p, err := a.password("New password for " + who)
	if err != nil {
		return "", err
	}
	if f, ok := a.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		again, err := a.password("The same again")
		if err != nil {
			return "", err
		}
		if again != p {
			return "", errors.New("the two passwords differ")
		}
	}
	return p, nil
}
