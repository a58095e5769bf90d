package cli_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/lazaret/lazaret/internal/cli"
	"github.com/lazaret/lazaret/internal/config"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestScripts runs the command tree against a real manager, a fake node and a
// fake local scanner. Beside the usual commands scripts have:
//
//	lazaret CODE ARG…    runs a command line and asserts its exit code
//	interrupt CODE ARG…  the same, interrupted after 200 ms
//	input FILE           gives the next command line its standard input
//	manager              starts a manager with users and a node, logs ada in
//	as USER              uses another user's token; "nobody" has a wrong one
//	daemon               starts the node's local API
//	untar FILE           prints names and contents of a .tar.gz
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", UpdateScripts: *update, RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", filepath.Join(e.WorkDir, "home"))
			e.Setenv("LAZARET_CONFIG", filepath.Join(e.WorkDir, "lazaret.yaml"))
			// Paths of sockets are short: not below WORK.
			dir, err := os.MkdirTemp("", "lzcli")
			if err != nil {
				return err
			}
			e.Defer(func() { os.RemoveAll(dir) })
			e.Setenv("RUN", dir)
			return os.WriteFile(filepath.Join(e.WorkDir, "lazaret.yaml"), []byte("runDir: "+dir+"\nstateDir: /var/lib/lazaret\nnode: n1\n"), 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"lazaret":   func(ts *testscript.TestScript, _ bool, args []string) { runLine(ts, context.Background(), args) },
			"interrupt": interrupt,
			"input":     func(ts *testscript.TestScript, _ bool, args []string) { ts.Setenv("INPUT", ts.MkAbs(args[0])) },
			"manager":   startManager,
			"as": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv("LAZARET_TOKEN", ts.Getenv("TOKEN_"+args[0]))
			},
			"daemon": startDaemon,
			"untar":  untar,
		},
	})
}

func interrupt(ts *testscript.TestScript, _ bool, args []string) {
	ctx, cancel := context.WithCancel(context.Background())
	defer time.AfterFunc(200*time.Millisecond, cancel).Stop()
	defer cancel()
	runLine(ts, ctx, args)
}

func runLine(ts *testscript.TestScript, ctx context.Context, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: lazaret CODE ARG…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	var in io.Reader = strings.NewReader("")
	if path := ts.Getenv("INPUT"); path != "" {
		b, err := os.ReadFile(path)
		ts.Check(err)
		in = bytes.NewReader(b)
		ts.Setenv("INPUT", "")
	}
	code := cli.Main(ctx, args[1:], cli.Env{
		Stdin: in, Stdout: ts.Stdout(), Stderr: ts.Stderr(), Getenv: ts.Getenv, Version: "1.2.3",
		Local: fakeScanner{},
		Up: func(ctx context.Context, c config.Config) error {
			b, err := config.Format(c)
			if err != nil {
				return err
			}
			if _, err := ts.Stdout().Write(b); err != nil {
				return err
			}
			<-ctx.Done()
			return context.Cause(ctx)
		},
		Service: func(context.Context, config.Config) error { return errors.New("the service broke") },
	})
	if code != want {
		ts.Fatalf("exit code %d, want %d", code, want)
	}
}

func untar(ts *testscript.TestScript, _ bool, args []string) {
	z, err := gzip.NewReader(strings.NewReader(ts.ReadFile(args[0])))
	ts.Check(err)
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return
		}
		ts.Check(err)
		fmt.Fprintf(ts.Stdout(), "%s %o\n", h.Name, h.Mode)
		_, err = io.Copy(ts.Stdout(), r)
		ts.Check(err)
	}
}
