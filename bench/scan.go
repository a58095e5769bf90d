package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/lazaret/lazaret/bench/report"
)

// monitor keeps files where they are: what is measured is finding them.
const monitor = `apiVersion: lazaret/v1
kind: Policy
metadata: {name: default}
spec: {mode: monitor}
`

// found are the exit codes of a scan that was done: clean, threats, partial.
var found = []int{0, 1, 3}

// scan measures first and second scans of a tree against yara and clamscan.
func scan(ctx context.Context, l *lab) (*report.Part, error) {
	p := &report.Part{Name: "scan", Title: "scanning a tree"}
	c, err := l.sample(ctx)
	if err != nil {
		return nil, err
	}
	p.Describe("The corpus: %s.", c)
	for _, f := range []func(context.Context, *lab, *corpus, *report.Part) error{againstYara, againstClamscan, alone} {
		if err := f(ctx, l, c, p); err != nil {
			return nil, err
		}
		if err := l.clean(); err != nil {
			return nil, err
		}
	}
	return p, nil
}

// monitoring starts a daemon that protects nothing and acts on nothing.
func (l *lab) monitoring(ctx context.Context) (*daemon, error) {
	d, err := l.daemon(ctx)
	if err != nil {
		return nil, err
	}
	policy := filepath.Join(d.dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(monitor), 0o600); err != nil {
		return nil, fmt.Errorf("writing a policy: %w", err)
	}
	_, err = d.lazaret(ctx, "policy", "apply", "-f", policy)
	return d, err
}

func againstYara(ctx context.Context, l *lab, c *corpus, p *report.Part) error {
	rules, err := l.rulesFor(ctx)
	if err != nil {
		return err
	}
	d, err := l.monitoring(ctx)
	if err != nil {
		return err
	}
	taken := 0
	if l.rules != "" {
		r, err := d.learn(ctx, rules.dir)
		if err != nil {
			return err
		}
		taken = r.Rules
		p.Describe("Rules: %s, %d files, %d rules with the built-in ones (%d refused by us, %d files refused by yarac and given to nobody).", rules.what, rules.files, taken, len(r.Errors), rules.refused)
	}
	whole := contest{l: l, d: d, rules: rules, dir: c.dir, second: p.Add("second scan of the unchanged tree, through the daemon", "lazaret scan CORPUS", report.Seconds)}
	whole.add(p, "")
	if err := whole.run(ctx, 5); err != nil {
		return err
	}
	plain, files, bytes, err := l.unpacked(ctx, d, c)
	if err != nil {
		return err
	}
	same := contest{l: l, d: d, rules: rules, dir: plain}
	same.add(p, ", only files that are not packed")
	if err := same.run(ctx, 3); err != nil {
		return err
	}
	p.Promise(report.Faster("first scan against yara, same rules, same cores", whole.first, whole.yara, 1.5))
	p.Promise(report.Faster("the same without files that we unpack and yara does not", same.first, same.yara, 1.5))
	p.Promise(report.Faster("second scan against the first, through the daemon", whole.second, whole.first, 20))
	p.Note("%s. We also look into archives and compressed files, which is most of the difference between the whole corpus and its %d files (%.0f MB) that are not packed: %s.",
		whole.rates(len(c.list), c.bytes), files, float64(bytes)/1e6, same.rates(files, bytes))
	return compare(ctx, l, d, c, rules, p)
}

func alone(ctx context.Context, l *lab, c *corpus, p *report.Part) error {
	home, err := l.dir("home")
	if err != nil {
		return err
	}
	scan := func() (time.Duration, error) {
		cmd := exec.CommandContext(ctx, filepath.Join(l.bin, "lazaret"), "scan", "--no-daemon", c.dir)
		cmd.Env = []string{"HOME=" + home, "PATH=" + os.Getenv("PATH")}
		return timed(cmd, found...)
	}
	// Once, so that the built-in rules are compiled.
	if _, err := scan(); err != nil {
		return err
	}
	first := p.Add("first scan, built-in rules, without a daemon", "lazaret scan --no-daemon CORPUS", report.Seconds)
	second := p.Add("second scan, in a new process", "lazaret scan --no-daemon CORPUS", report.Seconds)
	for range l.times(5) {
		known := must(filepath.Glob(filepath.Join(home, ".cache/lazaret/scan.db*")))
		if len(known) == 0 {
			return errors.New("finding the user's verdict cache: it is not there")
		}
		for _, path := range known {
			if err := os.Remove(path); err != nil {
				return fmt.Errorf("removing the verdict cache: %w", err)
			}
		}
		took, err := scan()
		if err != nil {
			return err
		}
		first.AddTime(took)
		for range 3 {
			if took, err = scan(); err != nil {
				return err
			}
			second.AddTime(took)
		}
	}
	p.Promise(report.Faster("second scan against the first, without a daemon", second, first, 20))
	return nil
}
