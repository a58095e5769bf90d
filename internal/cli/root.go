package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/config"
)

// app is what the commands share.
type app struct {
	Env
	configPath string
	server     string
	format     output.Format
	quiet      bool
	lines      *bufio.Scanner // over Stdin, for answers to questions
}

// Main runs one command line and returns its exit code.
func Main(ctx context.Context, args []string, env Env) int {
	root := New(env)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err != nil && ctx.Err() != nil && errors.Is(err, context.Cause(ctx)) {
		err = context.Canceled // whatever the reason for stopping is called
	}
	var silent exitError
	if err != nil && !errors.As(err, &silent) {
		fmt.Fprintln(env.Stderr, "lazaret: "+sentence(err))
		var usage usageError
		if errors.As(err, &usage) {
			fmt.Fprintln(env.Stderr, "Run `lazaret --help`, or a command with --help, for its usage and examples.")
		}
	}
	return exitCode(err)
}

// New returns the command tree.
func New(env Env) *cobra.Command {
	a := &app{Env: env, format: output.Table}
	root := &cobra.Command{
		Use:   "lazaret",
		Short: "Threat protection for virtual machines and containers, from the host",
		Long: `Lazaret inspects files, containers and images from the host: one shared
inspection service per host instead of one antivirus per workload.

Exit codes: 0 clean, 1 threat found, 2 error, 3 not inspected completely,
10 daemon unreachable, 11 denied, 12 refused by policy, 130 interrupted.`,
		Example: `  lazaret scan /srv              look at files, with or without a daemon
  lazaret up                     protect this host
  lazaret status                 what is protected, what is wrong
  lazaret finding list           what was found`,
		SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if a.format == output.SARIF && c.Name() != "scan" {
				return usageError{errors.New("--output sarif is for lazaret scan only")}
			}
			return nil
		},
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&a.configPath, "config", "", "configuration file (default "+config.DefaultPath+", or $LAZARET_CONFIG)")
	f.StringVar(&a.server, "server", "", "manager to talk to: a URL or the path of its socket (or $LAZARET_SERVER)")
	f.VarP(&a.format, "output", "o", "output: "+strings.Join(output.Formats, ", ")+"; scan also "+string(output.SARIF))
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no remarks on standard error")
	root.AddCommand(
		a.scanCommand(), a.scansCommand(), a.statusCommand(), a.findingCommand(), a.quarantineCommand(), a.allowedCommand(),
		a.policyCommand(), a.signatureCommand(), a.workloadCommand(), a.nodeCommand(), a.auditCommand(),
		a.userCommand(), a.tokenCommand(), a.loginCommand(), a.logoutCommand(), a.setupCommand(), a.setupLinkCommand(),
		a.upCommand(), a.serviceCommand(), a.configCommand(), a.supportCommand(), a.versionCommand(),
		a.completionCommand(root), a.manCommand(root), a.docsCommand(root),
	)
	complete(root)
	wrapArgs(root)
	return root
}

// wrapArgs makes wrong arguments usage errors in every command, and words that
// name no command as well: a misspelt one must not end well.
func wrapArgs(c *cobra.Command) {
	if !c.Runnable() {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			text := fmt.Sprintf("%s knows no command %q", c.CommandPath(), args[0])
			if like := c.SuggestionsFor(args[0]); len(like) > 0 {
				text += "; did you mean " + strings.Join(like, " or ") + "?"
			}
			return usageError{errors.New(text)}
		}
		c.SuggestionsMinimumDistance = 2
	}
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError{fmt.Errorf("%w; usage: %s", err, c.UseLine())}
			}
			if err := c.ValidateRequiredFlags(); err != nil {
				return usageError{fmt.Errorf("%w; usage: %s", err, c.UseLine())}
			}
			return nil
		}
	}
	for _, sub := range c.Commands() {
		wrapArgs(sub)
	}
}

// config loads the configuration file.
func (a *app) config() (config.Config, error) {
	return config.Load(a.configFile())
}

// configFile is the path of the configuration file.
func (a *app) configFile() string {
	if a.configPath != "" {
		return a.configPath
	}
	if path := a.Getenv("LAZARET_CONFIG"); path != "" {
		return path
	}
	return config.DefaultPath
}

// address says where the manager is: the one named, or the socket of the
// configuration. It carries no token.
func (a *app) address() (api.ClientConfig, error) {
	server := a.server
	if server == "" {
		server = a.Getenv("LAZARET_SERVER")
	}
	cc := api.ClientConfig{UserAgent: "lazaret/" + a.Version}
	switch {
	case strings.Contains(server, "://"):
		cc.URL = strings.TrimSuffix(server, "/")
		return cc, checkClear(cc.URL)
	case server != "":
		abs, err := filepath.Abs(server)
		if err != nil {
			return cc, fmt.Errorf("resolving %s: %w", server, err)
		}
		cc.Socket = abs
	default:
		c, err := a.config()
		if err != nil {
			return cc, err
		}
		cc.Socket = c.ManagerSocket()
	}
	return cc, nil
}

// checkClear refuses to send passwords and tokens over a network unencrypted.
func checkClear(server string) error {
	u, err := url.Parse(server)
	if err != nil || u.Scheme != "http" {
		return nil // the client says what is wrong with an address
	}
	ip := net.ParseIP(u.Hostname())
	if u.Hostname() == "localhost" || (ip != nil && ip.IsLoopback()) {
		return nil
	}
	return usageError{fmt.Errorf("%s would carry secrets unencrypted: use https", server)}
}

// client returns a client of the manager with the caller's token.
func (a *app) client() (*api.Client, error) {
	cc, err := a.address()
	if err != nil {
		return nil, err
	}
	if cc.Token, err = a.token(cc); err != nil {
		return nil, err
	}
	return api.NewClient(cc)
}

// withClient runs f with a client and closes it.
func (a *app) withClient(f func(*api.Client) error) error {
	c, err := a.client()
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// withStranger is withClient without a token, for those who have none yet: an
// expired one must not be in the way.
func (a *app) withStranger(f func(*api.Client) error) error {
	cc, err := a.address()
	if err != nil {
		return err
	}
	c, err := api.NewClient(cc)
	if err != nil {
		return err
	}
	defer c.Close()
	return f(c)
}

// say writes a remark for people to standard error.
func (a *app) say(format string, args ...any) {
	if !a.quiet {
		fmt.Fprintf(a.Stderr, format+"\n", args...)
	}
}

// print writes a result in the chosen format; table draws it for people.
func (a *app) print(v any, table func(*output.Writer)) error {
	return output.Print(a.Stdout, a.format, v, table)
}
