// Package config reads the one configuration file of the daemons. Defaults are
// in code, unknown keys are errors: a typing mistake must not switch
// protection off.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/lazaret/lazaret/internal/engine"
)

// DefaultPath is where the daemons look for their configuration.
const DefaultPath = "/etc/lazaret/lazaret.yaml"

// Config is the whole file. The zero value of a key means its default.
type Config struct {
	// StateDir holds everything that must survive: databases, vault, keys.
	StateDir string `yaml:"stateDir"`
	// RunDir holds the sockets manager.sock and node.sock.
	RunDir string `yaml:"runDir"`
	// Node is this host's name in findings; default: the host name.
	Node string `yaml:"node"`
	// Listen is the TCP address of the API, "off" for none. Other than loopback
	// addresses need TLS.
	Listen string `yaml:"listen"`
	TLS    TLS    `yaml:"tls"`
	// Protect says which file systems are under on-access protection.
	Protect Protect `yaml:"protect"`
	// Failure says what happens to opens that nobody can judge in time.
	Failure Failure `yaml:"failure"`
	// Engine says how content is inspected.
	Engine Engine `yaml:"engine"`
	// Runtimes names the sockets of container runtimes.
	Runtimes Runtimes `yaml:"runtimes"`
	// Retention says how long things are kept.
	Retention Retention `yaml:"retention"`
	Log       Log       `yaml:"log"`
}

// TLS names the certificate and key of the TCP listener, PEM files.
type TLS struct {
	Cert string `yaml:"cert"`
	Key  string `yaml:"key"`
}

// Protect selects file systems. A file system is protected as a whole: naming
// /srv/data protects everything on the file system that holds it.
type Protect struct {
	// Containers is "auto" (the file systems that hold containers' layers) or
	// "off".
	Containers string `yaml:"containers"`
	// Paths are further places whose file systems are protected.
	Paths []string `yaml:"paths"`
}

// Failure is about the service itself; policies have their own deadline.
type Failure struct {
	// Mode is "open" (allow) or "closed" (deny) for opens that the service
	// cannot answer, also while it restarts.
	Mode string `yaml:"mode"`
	// Deadline is how long an open waits for its inspection.
	Deadline time.Duration `yaml:"deadline"`
	// Hold is how long opens wait for a restarting service before Mode applies.
	Hold time.Duration `yaml:"hold"`
}

// Engine configures inspection.
type Engine struct {
	// Program is the path of lazaret-engine; default: beside lazaret.
	Program string `yaml:"program"`
	// Workers is the number of sandboxed processes; default: see
	// EngineWorkers. One more inspects only what somebody waits for.
	Workers int `yaml:"workers"`
	// Memory limits one worker, bytes of resident memory.
	Memory int64         `yaml:"memory"`
	Limits engine.Limits `yaml:"limits"`
	// KnownGood are directories of files that new signatures must not match.
	KnownGood []string `yaml:"knownGood"`
}

// Runtimes names sockets; "auto" uses the usual place if it exists, "off"
// switches a runtime off.
type Runtimes struct {
	Containerd string `yaml:"containerd"`
	Docker     string `yaml:"docker"`
	NRI        string `yaml:"nri"`
}

// Retention durations.
type Retention struct {
	Quarantine time.Duration `yaml:"quarantine"`
}

// Log configures logging to standard error.
type Log struct {
	Level  string `yaml:"level"`  // debug, info, warn, error
	Format string `yaml:"format"` // text, json
}

// Default returns the configuration of an empty file.
func Default() Config {
	host, err := os.Hostname()
	if err != nil {
		host = "localhost"
	}
	return Config{
		StateDir: "/var/lib/lazaret", RunDir: "/run/lazaret", Node: host,
		Listen:    "127.0.0.1:7480",
		Protect:   Protect{Containers: "auto"},
		Failure:   Failure{Mode: "open", Deadline: 5 * time.Second, Hold: 2 * time.Second},
		Engine:    Engine{Memory: 1 << 30, Limits: engine.DefaultLimits()},
		Runtimes:  Runtimes{Containerd: "auto", Docker: "auto", NRI: "auto"},
		Retention: Retention{Quarantine: 90 * 24 * time.Hour},
		Log:       Log{Level: "info", Format: "text"},
	}
}

// Load reads the file at path. A missing file at DefaultPath means defaults;
// anywhere else it is an error.
func Load(path string) (Config, error) {
	if path == "" {
		path = DefaultPath
	}
	b, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) && path == DefaultPath {
		return Default(), nil
	}
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration: %w", err)
	}
	c, err := Parse(b)
	if err != nil {
		return Config{}, fmt.Errorf("reading configuration %s: %w", path, err)
	}
	return c, nil
}

// Parse reads YAML over the defaults and validates the result.
func Parse(b []byte) (Config, error) {
	c := Default()
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&c); err != nil && !errors.Is(err, io.EOF) {
		return Config{}, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return Config{}, errors.New("more than one YAML document: keep one")
	}
	if l := c.Engine.Limits; min(int64(l.Depth), int64(l.Members), l.MemberSize, l.Total, l.Ratio, l.RatioAfter, l.Buffer, int64(l.Time)) < 0 {
		return Config{}, errors.New("engine.limits: a limit is negative")
	}
	c.Engine.Limits = c.Engine.Limits.WithDefaults() // for those that are 0
	return c, c.Validate()
}

// Validate reports every wrong value in one error, a line each.
func (c Config) Validate() error {
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	oneOf := func(key, v string, allowed ...string) {
		for _, a := range allowed {
			if v == a {
				return
			}
		}
		check(false, "%s: %q is not one of %v", key, v, allowed)
	}
	check(filepath.IsAbs(c.StateDir), "stateDir: %q must be an absolute path", c.StateDir)
	check(filepath.IsAbs(c.RunDir), "runDir: %q must be an absolute path", c.RunDir)
	check(len(c.RunDir) < 90, "runDir: %q is too long for the sockets in it (90 bytes at most)", c.RunDir)
	check(c.Node != "" && len(c.Node) <= 253, "node: name must have 1 to 253 characters")
	oneOf("protect.containers", c.Protect.Containers, "auto", "off")
	for _, p := range c.Protect.Paths {
		check(filepath.IsAbs(p), "protect.paths: %q must be an absolute path", p)
	}
	oneOf("failure.mode", c.Failure.Mode, "open", "closed")
	check(c.Failure.Deadline >= 100*time.Millisecond && c.Failure.Deadline <= time.Minute,
		"failure.deadline: %s must be between 100ms and 1m", c.Failure.Deadline)
	check(c.Failure.Hold >= 0 && c.Failure.Hold <= time.Minute, "failure.hold: %s must be between 0s and 1m", c.Failure.Hold)
	check(c.Engine.Workers >= 0 && c.Engine.Workers <= 256, "engine.workers: %d must be between 0 and 256", c.Engine.Workers)
	check(c.Engine.Memory >= 64<<20, "engine.memory: %d is less than 64 MiB", c.Engine.Memory)
	check(c.Engine.Program == "" || filepath.IsAbs(c.Engine.Program), "engine.program: %q must be an absolute path", c.Engine.Program)
	check(c.Retention.Quarantine >= time.Hour, "retention.quarantine: %s is less than an hour", c.Retention.Quarantine)
	oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	oneOf("log.format", c.Log.Format, "text", "json")
	check((c.TLS.Cert == "") == (c.TLS.Key == ""), "tls: cert and key belong together")
	if c.Listen != "off" {
		host, _, err := net.SplitHostPort(c.Listen)
		check(err == nil, "listen: %q is not host:port", c.Listen)
		ip := net.ParseIP(host)
		loopback := host == "localhost" || (ip != nil && ip.IsLoopback())
		check(loopback || c.TLS.Cert != "", "listen: %q is reachable from outside and needs tls.cert and tls.key", c.Listen)
	}
	return errors.Join(errs...)
}

// EngineProgram returns the path of lazaret-engine: the configured one, the
// one beside this program, or the packaged one.
func (c Config) EngineProgram() (string, error) {
	if c.Engine.Program != "" {
		return c.Engine.Program, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("finding lazaret-engine: %w", err)
	}
	beside := filepath.Join(filepath.Dir(self), "lazaret-engine")
	for _, p := range []string{beside, "/usr/lib/lazaret/lazaret-engine"} {
		if _, err := os.Stat(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("lazaret-engine is neither at %s nor in /usr/lib/lazaret: run make build or set engine.program", beside)
}

// EngineWorkers is the configured number of sandboxed processes, or one per core
// and one more: while one waits for its next file, the others keep the cores
// busy (a scan on two cores took 3.4 s with two and 2.7 s with three).
func (c Config) EngineWorkers() int {
	if c.Engine.Workers > 0 {
		return c.Engine.Workers
	}
	return runtime.NumCPU() + 1
}

// ManagerSocket and NodeSocket are the local API sockets.
func (c Config) ManagerSocket() string { return filepath.Join(c.RunDir, "manager.sock") }

// NodeSocket is the node's local streaming API.
func (c Config) NodeSocket() string { return filepath.Join(c.RunDir, "node.sock") }

// Format returns the configuration as a file that Parse reads.
func Format(c Config) ([]byte, error) {
	b, err := yaml.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("writing configuration: %w", err)
	}
	return b, nil
}

// Map returns the configuration as the file's keys and values, for display.
func Map(c Config) (map[string]any, error) {
	b, err := Format(c)
	if err != nil {
		return nil, err
	}
	m := map[string]any{}
	if err := yaml.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("showing configuration: %w", err)
	}
	return m, nil
}
