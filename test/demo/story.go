package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/signature/builtin"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload/containerdtest"
)

func title(s string)               { fmt.Printf("\n\033[1m== %s\033[0m\n", s) }
func note(s string, args ...any)   { fmt.Printf("  "+s+"\n", args...) }
func passed(s string, args ...any) { fmt.Printf("  \033[32m✓\033[0m "+s+"\n", args...) }

// dropper is harmless: it says that it ran, and ends. After its end stands a
// sample that a bundled rule knows: an inert fragment of a reverse shell to an
// address reserved for documentation.
func dropper() ([]byte, error) {
	for _, s := range builtin.Samples() {
		if strings.HasPrefix(s.Signature, "Lazaret_ReverseShell_Bash") {
			return append([]byte("#!/bin/sh\necho it ran\nexit 0\n"), s.Data...), nil
		}
	}
	return nil, errors.New("the bundle has no sample of a reverse shell")
}

// layer is an image layer that came infected from the registry.
func layer() (containerdtest.Layer, error) {
	script, err := dropper()
	return containerdtest.Layer{{Path: "opt/vendor/setup.sh", Data: script, Mode: 0o755}}, err
}

// story is what happens, in order.
type story struct {
	ctx       context.Context
	lazaret   *lazaret
	container *containerdtest.Container
	image     string
}

func (s *story) tell() error {
	for _, act := range []func() error{s.write, s.imageLayer, s.findings, s.restore, s.scan, s.audit} {
		if err := act(); err != nil {
			return err
		}
	}
	title("Done")
	return nil
}

// write has the container write two malicious files and try to use them.
func (s *story) write() error {
	title("The container writes a test virus and a reverse shell, and tries to use them")
	script, err := dropper()
	if err != nil {
		return err
	}
	if err := s.refused("the container's test virus cannot be read", put("/data/eicar.com", builtin.EICAR())+"; cat /data/eicar.com", "EICAR"); err != nil {
		return err
	}
	return s.refused("the container's reverse shell cannot be executed",
		put("/data/run.sh", script)+"; chmod 755 /data/run.sh; /data/run.sh", "it ran")
}

// put is a shell command that writes a file.
func put(file string, data []byte) string {
	return fmt.Sprintf("mkdir -p %s; echo %s | base64 -d >%s", path.Dir(file), base64.StdEncoding.EncodeToString(data), file)
}

// refused runs a script in the container that must fail without showing text.
func (s *story) refused(what, script, text string) error {
	r, err := s.container.Sh(s.ctx, script)
	if err != nil {
		return err
	}
	if r.Code == 0 || strings.Contains(r.Stdout, text) {
		return fmt.Errorf("protection failed: %s: it ended with %d and printed %q", what, r.Code, r.Stdout)
	}
	passed("%s:  %s", what, strings.TrimSpace(r.Stderr))
	return nil
}

// imageLayer tries a file that the image brought along.
func (s *story) imageLayer() error {
	title("The image itself is infected: denied, not removed, because other containers share its layer")
	return s.refused("the image's file cannot be executed", "/opt/vendor/setup.sh", "it ran")
}

func (s *story) findings() error {
	title("What a person sees")
	var list []threat.Finding
	if err := s.lazaret.await(s.ctx, "findings", func() bool {
		if s.lazaret.json(s.ctx, &list, "finding", "list") != nil {
			return false
		}
		n := 0
		for _, f := range list {
			if len(f.Decisions) > 0 && f.State != "" {
				n++
			}
		}
		return n >= 3 && len(s.items()) >= 2
	}); err != nil {
		return err
	}
	if err := s.lazaret.show(s.ctx, "finding", "list"); err != nil {
		return err
	}
	for _, f := range list {
		if f.Workload.Name != "shop-1" || f.Workload.Image != s.image || f.Location.Path == "" {
			return fmt.Errorf("finding %s does not name container, image and path: %+v", f.ID, f.Location)
		}
	}
	passed("the findings name container, image and path")
	if err := s.lazaret.show(s.ctx, "quarantine", "list"); err != nil {
		return err
	}
	passed("both files are in quarantine, encrypted; the image's file stays where it is, denied")
	return nil
}

func (s *story) items() []api.QuarantineItem {
	var items []api.QuarantineItem
	if s.lazaret.json(s.ctx, &items, "quarantine", "list", "--state", "held") != nil {
		return nil
	}
	return items
}

// restore has a person give the test virus back.
func (s *story) restore() error {
	title("A person decides: the test virus was ours, give it back")
	id := ""
	for _, i := range s.items() {
		if i.Location.Path == "/data/eicar.com" {
			id = i.ID
		}
	}
	if id == "" {
		return errors.New("the test virus is not in quarantine")
	}
	_, refusal, code, err := s.lazaret.run(s.ctx, "quarantine", "restore", id, "--reason", "give it back")
	if err != nil || code == 0 {
		return fmt.Errorf("a malicious file was restored without being allowed: %w", err)
	}
	passed("without an exception it is refused:  %s", strings.TrimSpace(refusal))
	if err := s.lazaret.show(s.ctx, "quarantine", "restore", id, "--reason", "our own test file", "--allow-for", "24h"); err != nil {
		return err
	}
	r, err := s.container.Sh(s.ctx, "cat /data/eicar.com")
	if err != nil {
		return err
	}
	if r.Code != 0 || r.Stdout != string(builtin.EICAR()) {
		return fmt.Errorf("the restored file cannot be read: %s", r.Stderr)
	}
	passed("the file is back in the container and can be read, for 24 hours")
	return nil
}

// scan looks at the whole container on demand.
func (s *story) scan() error {
	title("Looking at the whole container on demand")
	out, errOut, code, err := s.lazaret.run(s.ctx, "scan", "--container", "shop-1")
	if err != nil {
		return err
	}
	fmt.Printf("\n  $ lazaret scan --container shop-1\n")
	for line := range strings.Lines(out + errOut) {
		fmt.Print("    " + line)
	}
	if code != 1 || !strings.Contains(out, "/opt/vendor/setup.sh") {
		return fmt.Errorf("the scan did not find the image's file (exit code %d)", code)
	}
	passed("it finds the image's file (exit code 1)")
	return nil
}

func (s *story) audit() error {
	title("Who did what: the audit log")
	if err := s.lazaret.show(s.ctx, "audit", "list", "--limit", "8"); err != nil {
		return err
	}
	if err := s.lazaret.show(s.ctx, "audit", "verify"); err != nil {
		return err
	}
	passed("the audit log verifies")
	return nil
}
