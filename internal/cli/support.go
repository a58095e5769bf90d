package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/config"
)

func (a *app) supportCommand() *cobra.Command {
	c := &cobra.Command{Use: "support", Short: "Information for whoever helps you", Example: `  sudo lazaret support dump`}
	var to string
	dump := &cobra.Command{
		Use: "dump", Short: "Collect status, configuration, metrics and host facts in one archive", Args: cobra.NoArgs,
		Long: `Collect what helps to find a problem: status with conditions, configuration (it
holds no secrets), nodes, bundles, metrics, versions, mounts and kernel facts.
It contains no file contents, keys, passwords or tokens; findings are counted,
not listed. What could not be collected is said in errors.txt.`,
		Example: `  sudo lazaret support dump --to lazaret-support.tar.gz`,
		RunE: func(c *cobra.Command, _ []string) error {
			if to == "" {
				to = "lazaret-support-" + time.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
			}
			return a.dump(c.Context(), to)
		},
	}
	dump.Flags().StringVar(&to, "to", "", "archive to write")
	c.AddCommand(dump)
	return c
}

func (a *app) dump(ctx context.Context, to string) error {
	f, err := renameio.NewPendingFile(to, renameio.WithPermissions(0o600))
	if err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	defer f.Cleanup()
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	z := gzip.NewWriter(f)
	t := tar.NewWriter(z)
	var failed bytes.Buffer
	for _, part := range a.dumpParts(ctx) {
		b, err := part.read()
		if errors.Is(ctx.Err(), context.Canceled) {
			return context.Cause(ctx)
		}
		if err != nil {
			fmt.Fprintf(&failed, "%s: %v\n", part.name, err)
			continue
		}
		if err := addEntry(t, part.name, b); err != nil {
			return fmt.Errorf("writing %s: %w", to, err)
		}
	}
	if err := addEntry(t, "errors.txt", failed.Bytes()); err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	for _, c := range []io.Closer{t, z} {
		if err := c.Close(); err != nil {
			return fmt.Errorf("writing %s: %w", to, err)
		}
	}
	if err := f.CloseAtomicallyReplace(); err != nil {
		return fmt.Errorf("writing %s: %w", to, err)
	}
	return a.print(map[string]string{"path": to}, func(w *output.Writer) { w.Line("%s", to) })
}

type dumpPart struct {
	name string
	read func() ([]byte, error)
}

func (a *app) dumpParts(ctx context.Context) []dumpPart {
	get := func(path string) func() ([]byte, error) {
		return func() (b []byte, err error) {
			err = a.withClient(func(client *api.Client) error {
				resp, err := client.Open(ctx, http.MethodGet, path, nil)
				if err != nil {
					return err
				}
				defer resp.Body.Close()
				b, err = io.ReadAll(io.LimitReader(resp.Body, 16<<20))
				return err
			})
			return b, err
		}
	}
	file := func(path string) func() ([]byte, error) {
		return func() ([]byte, error) {
			f, err := os.Open(path)
			if err != nil {
				return nil, err
			}
			defer f.Close()
			return io.ReadAll(io.LimitReader(f, 1<<20))
		}
	}
	parts := []dumpPart{
		{"version.txt", func() ([]byte, error) {
			return fmt.Appendf(nil, "lazaret %s\n%s %s/%s\n", a.Version, runtime.Version(), runtime.GOOS, runtime.GOARCH), nil
		}},
		{"config.yaml", a.dumpConfig},
		{"status.json", get(api.Prefix + "/status")},
		{"bundles.json", get(api.Prefix + "/signatures")},
		{"metrics.txt", get("/metrics")},
		{"ready.txt", get("/readyz")},
	}
	for _, p := range []string{"/proc/version", "/proc/meminfo", "/proc/mounts", "/proc/pressure/cpu", "/proc/pressure/io", "/proc/sys/fs/fanotify/max_user_marks", "/etc/os-release", "/sys/kernel/security/lsm"} {
		parts = append(parts, dumpPart{"host/" + strings.ReplaceAll(strings.TrimPrefix(p, "/"), "/", "_"), file(p)})
	}
	return parts
}

func (a *app) dumpConfig() ([]byte, error) {
	c, err := a.config()
	if err != nil {
		return nil, err
	}
	m, err := config.Map(c)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	err = output.Print(&b, output.YAML, m, nil)
	return b.Bytes(), err
}

func addEntry(t *tar.Writer, name string, b []byte) error {
	if err := t.WriteHeader(&tar.Header{Name: "lazaret-support/" + name, Mode: 0o600, Size: int64(len(b)), ModTime: time.Now()}); err != nil {
		return err
	}
	_, err := t.Write(b)
	return err
}
