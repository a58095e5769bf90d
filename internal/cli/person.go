package cli

import (
	"context"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
)

func (a *app) loginCommand() *cobra.Command {
	var user string
	c := &cobra.Command{
		Use: "login", Short: "Log in and keep an API token for later commands", Args: cobra.NoArgs,
		Long: `Log in with name and password. The password is asked for, or read from standard
input; it is not kept. A token that is valid for 30 days is stored in
~/.config/lazaret/credentials and sent to this server only. Certificates are
checked against the system's; SSL_CERT_FILE names others.`,
		Example: `  lazaret login --user ada --server https://manager:7480
  lazaret login --user ci <password.txt`,
		RunE: func(c *cobra.Command, _ []string) error {
			p, err := a.password("Password for " + user)
			if err != nil {
				return err
			}
			return a.withStranger(func(client *api.Client) error { return a.login(c.Context(), client, user, p) })
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
	resp, err := client.Open(ctx, http.MethodPost, api.Prefix+"/sessions", body, api.Header("Content-Type", "application/json"))
	if err != nil {
		return err
	}
	resp.Body.Close()
	var cookies []string
	for _, k := range resp.Cookies() {
		cookies = append(cookies, k.Name+"="+k.Value)
	}
	session := api.Header("Cookie", strings.Join(cookies, "; "))
	var t api.Token
	if err := client.Post(ctx, api.Prefix+"/tokens", api.TokenRequest{Name: "login" + onHost(), For: "720h"}, &t, session); err != nil {
		return err
	}
	if err := client.Delete(ctx, api.Prefix+"/sessions/current", session); err != nil {
		return err
	}
	cc, err := a.address()
	if err != nil {
		return err
	}
	if err := a.storeCredentials(credentials{Server: serverOf(cc), ID: t.ID, Token: t.Secret}); err != nil {
		return err
	}
	a.say("logged in as %s until %s", user, short(t.Expires))
	return nil
}

// onHost is "@" and the host's name as far as names of tokens may hold it.
func onHost() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return ""
	}
	return "@" + strings.Map(func(r rune) rune {
		if r == '-' || r == '.' || (r >= '0' && r <= '9') || (r >= 'a' && r <= 'z') || (r >= 'A' && r <= 'Z') {
			return r
		}
		return '-'
	}, host)
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use: "logout", Short: "Delete the token that login stored, here and at the manager", Args: cobra.NoArgs,
		Example: `  lazaret logout`,
		RunE: func(c *cobra.Command, _ []string) error {
			old, err := a.loadCredentials()
			if err != nil {
				return err
			}
			if err := a.dropCredentials(); err != nil || old.Token == "" {
				return err
			}
			cc := api.ClientConfig{Token: old.Token, UserAgent: "lazaret/" + a.Version}
			if strings.Contains(old.Server, "://") {
				cc.URL = old.Server
			} else {
				cc.Socket = old.Server
			}
			client, err := api.NewClient(cc)
			if err != nil {
				return err
			}
			defer client.Close()
			if err := client.Delete(c.Context(), api.Prefix+"/tokens/"+escape(old.ID)); err != nil {
				a.say("the token is forgotten here, but the manager was not told: %s", sentence(err))
			}
			return nil
		},
	}
}

func (a *app) setupCommand() *cobra.Command {
	var r api.SetupRequest
	c := &cobra.Command{
		Use: "setup TOKEN", Short: "Create the first user with the set-up link or its token", Args: cobra.ExactArgs(1),
		Long: `Create the first user, who gets the roles platform, security and auditor. The
link is printed at the first start and by lazaret setup-link; it works once.
The password is asked for, or read from standard input.`,
		Example: `  lazaret setup lzs_… --user ada
  lazaret setup 'http://127.0.0.1:7480/setup#lzs_…' --user ada <password.txt`,
		RunE: func(c *cobra.Command, args []string) error {
			r.Token = args[0][strings.LastIndexByte(args[0], '#')+1:]
			var err error
			if r.Password, err = a.newPassword(r.Name); err != nil {
				return err
			}
			return a.withStranger(func(client *api.Client) error {
				var u api.User
				if err := client.Post(c.Context(), api.Prefix+"/setup", r, &u); err != nil {
					return err
				}
				return a.print(u, func(w *output.Writer) { drawUser(w, &u) })
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
