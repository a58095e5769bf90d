package cli

import (
	"errors"
	"fmt"
	"os"

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
	}{{&c.StateDir, f.state}, {&c.RunDir, f.run}, {&c.Listen, f.listen}} {
		if s.from != "" {
			*s.to = s.from
		}
	}
	c.Protect.Paths = append(c.Protect.Paths, f.protect...)
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
			return a.Up(c.Context(), conf)
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
			return a.Service(c.Context(), conf)
		},
	}
}

func (a *app) upConfig(f *upFlags) (config.Config, error) {
	c, err := a.config()
	if err != nil {
		return c, err
	}
	return f.apply(c)
}

func (a *app) configCommand() *cobra.Command {
	c := &cobra.Command{Use: "config", Short: "The configuration file"}
	c.AddCommand(&cobra.Command{
		Use: "check [FILE]", Short: "Check a configuration file; unknown keys are errors", Args: cobra.MaximumNArgs(1),
		Example: `  lazaret config check /etc/lazaret/lazaret.yaml`,
		RunE: func(_ *cobra.Command, args []string) error {
			path := config.DefaultPath
			if len(args) == 1 {
				path = args[0]
			}
			if _, err := os.Stat(path); err != nil {
				return fmt.Errorf("reading configuration: %w", err)
			}
			if _, err := config.Load(path); err != nil {
				return err
			}
			a.say("%s is right", path)
			return nil
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
