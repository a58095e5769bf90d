package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/config"
)

// upFlags are settings of the configuration file that are handy to give on the
// command line.
type upFlags struct {
	state, run, listen string
	protect            []string
}

func (f *upFlags) register(c *cobra.Command) {
	c.Flags().StringVar(&f.state, "state-dir", "", "directory for everything that must survive")
	c.Flags().StringVar(&f.run, "run-dir", "", "directory of the sockets")
	c.Flags().StringVar(&f.listen, "listen", "", "TCP address of the API, or off")
	c.Flags().StringSliceVar(&f.protect, "protect", nil, "protect the file system that holds this path, may be repeated")
}

func (f *upFlags) apply(c config.Config) (config.Config, error) {
	for _, s := range []struct {
		to   *string
		from string
	}{{&c.StateDir, f.state}, {&c.RunDir, f.run}} {
		if s.from != "" {
			abs, err := filepath.Abs(s.from)
			if err != nil {
				return c, fmt.Errorf("resolving %s: %w", s.from, err)
			}
			*s.to = abs
		}
	}
	if f.listen != "" {
		c.Listen = f.listen
	}
	for _, p := range f.protect {
		abs, err := filepath.Abs(p)
		if err != nil {
			return c, fmt.Errorf("resolving %s: %w", p, err)
		}
		c.Protect.Paths = append(c.Protect.Paths, abs)
	}
	return c, c.Validate()
}

func (a *app) upCommand() *cobra.Command {
	var f upFlags
	c := &cobra.Command{
		Use: "up", Short: "Protect this host: manager and node in one (root)", Args: cobra.NoArgs,
		Long: `Start Lazaret on this host and keep it running until interrupted. File systems
that hold containers are protected by themselves; name others with --protect.
The first start prints a one-time link to create the first user.`,
		Example: `  sudo lazaret up
  sudo lazaret up --protect /srv --state-dir /var/lib/lazaret`,
		RunE: func(c *cobra.Command, _ []string) error {
			conf, err := a.upConfig(&f)
			if err != nil {
				return err
			}
			return stopped(c.Context(), a.Up(c.Context(), conf))
		},
	}
	f.register(c)
	return c
}

// ServiceConfig is the environment variable in which the supervisor hands the
// service its configuration, as YAML.
const ServiceConfig = "LAZARET_SERVICE_CONFIG"

// serviceCommand is what the supervisor starts.
func (a *app) serviceCommand() *cobra.Command {
	return &cobra.Command{
		Use: "service", Hidden: true, Args: cobra.NoArgs, Short: "The supervised part of up",
		RunE: func(c *cobra.Command, _ []string) error {
			text := a.Getenv(ServiceConfig)
			if text == "" {
				return usageError{errors.New("service is started by `lazaret up`, not by people")}
			}
			conf, err := config.Parse([]byte(text))
			if err != nil {
				return fmt.Errorf("reading the supervisor's configuration: %w", err)
			}
			return stopped(c.Context(), a.Service(c.Context(), conf))
		},
	}
}

// stopped is the error of a daemon: being told to stop is none.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.Cause(ctx))) {
		return nil
	}
	return err
}

func (a *app) upConfig(f *upFlags) (config.Config, error) {
	c, err := a.config()
	if err != nil {
		return c, err
	}
	return f.apply(c)
}

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "The configuration file", Example: `  lazaret config check`}
	c.AddCommand(&cobra.Command{
		Use: "check [FILE]", Short: "Check a configuration file; unknown keys are errors", Args: cobra.MaximumNArgs(1),
		Long: `Check a configuration file; without FILE the one that lazaret up would read.
Every wrong value is reported, a line each. Exit code 0 if it is right, else 2.`,
		Example: `  lazaret config check
  lazaret config check new.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			path := a.configFile()
			if len(args) == 1 {
				path = args[0]
			}
			if _, err := os.Stat(path); err != nil { // Load takes a missing default for an empty one
				return fmt.Errorf("reading configuration: %w", err)
			}
			if _, err := config.Load(path); err != nil {
				return err
			}
			return a.print(map[string]any{"path": path, "ok": true}, func(w *output.Writer) { w.Line("%s is right", path) })
		},
	}, &cobra.Command{
		Use: "show", Short: "Show the configuration in force, defaults included", Args: cobra.NoArgs,
		Example: `  lazaret config show -o yaml`,
		RunE: func(*cobra.Command, []string) error {
			c, err := a.config()
			if err != nil {
				return err
			}
			v, err := config.Map(c)
			if err != nil {
				return err
			}
			format := a.format
			if format == output.Table {
				format = output.YAML
			}
			return output.Print(a.Stdout, format, v, nil)
		},
	})
	return c
}
