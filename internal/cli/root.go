package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
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
}

// Main runs one command line and returns its exit code.
func Main(ctx context.Context, args []string, env Env) int {
	root := New(env)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
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
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	f := root.PersistentFlags()
	f.StringVar(&a.configPath, "config", "", "configuration file (default "+config.DefaultPath+", or $LAZARET_CONFIG)")
	f.StringVar(&a.server, "server", "", "manager to talk to: a URL or the path of its socket (or $LAZARET_SERVER)")
	f.VarP(&a.format, "output", "o", "output: "+strings.Join(output.Formats, ", "))
	f.BoolVarP(&a.quiet, "quiet", "q", false, "no progress and no remarks on standard error")
	root.AddCommand(
		a.scanCommand(), a.scansCommand(), a.statusCommand(), a.findingCommand(), a.quarantineCommand(), a.policyCommand(),
		a.signatureCommand(), a.workloadCommand(), a.nodeCommand(), a.auditCommand(),
		a.userCommand(), a.tokenCommand(), a.loginCommand(), a.logoutCommand(), a.setupCommand(), a.setupLinkCommand(),
		a.upCommand(), a.serviceCommand(), a.configCommand(), a.supportCommand(), a.versionCommand(),
		a.completionCommand(root), a.manCommand(root), a.docsCommand(root),
	)
	wrapArgs(root)
	return root
}

// wrapArgs makes wrong arguments usage errors in every command.
func wrapArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return usageError{err}
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
	path := a.configPath
	if path == "" {
		path = a.Getenv("LAZARET_CONFIG")
	}
	return config.Load(path)
}

// client returns a client of the manager: the one named, or the socket of the
// configuration.
func (a *app) client() (*api.Client, error) {
	server := a.server
	if server == "" {
		server = a.Getenv("LAZARET_SERVER")
	}
	cc := api.ClientConfig{Token: a.token(), UserAgent: "lazaret/" + a.Version}
	switch {
	case strings.Contains(server, "://"):
		cc.URL = server
	case server != "":
		cc.Socket = server
	default:
		c, err := a.config()
		if err != nil {
			return nil, err
		}
		cc.Socket = c.ManagerSocket()
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

// token is the API token: the environment's, or the one login stored.
func (a *app) token() string {
	if t := a.Getenv("LAZARET_TOKEN"); t != "" {
		return t
	}
	b, err := os.ReadFile(a.credentials())
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// credentials is the file, mode 0600, that login writes the token to.
func (a *app) credentials() string {
	dir := a.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		dir = filepath.Join(a.Getenv("HOME"), ".config")
	}
	return filepath.Join(dir, "lazaret", "credentials")
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
