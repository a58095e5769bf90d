package main

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/lazaret/lazaret/internal/signature/builtin"
)

// ruleset is what both we and yara are given.
type ruleset struct {
	dir      string // sources, one directory for lazaret signature import
	compiled string // by yarac
	files    int
	refused  int // files that yarac does not compile alone; nobody gets them
	what     string
}

// externals are variables that public rules expect; see the documentation of
// yarac -d.
var externals = []string{"-d", "filename=", "-d", "filepath=", "-d", "extension=", "-d", "filetype=", "-d", "file_type=", "-d", "owner=", "-d", "md5="}

// rulesFor reads the rules of the run and compiles them for yara. Files that
// yarac refuses are left out for both.
func (l *lab) rulesFor(ctx context.Context) (*ruleset, error) {
	if l.given != nil {
		return l.given, nil
	}
	dir, err := l.dir("rules")
	if err != nil {
		return nil, err
	}
	r := &ruleset{dir: dir, compiled: filepath.Join(l.work, "rules.yarc")}
	own, err := l.dir("rules-builtin")
	if err != nil {
		return nil, err
	}
	if err := r.take(ctx, builtin.Rules(), own); err != nil {
		return nil, err
	}
	if l.rules == "" {
		r.what = "the built-in rules"
	} else if r.what, err = named(l.rules); err != nil {
		return nil, err
	} else if err := r.take(ctx, os.DirFS(l.rules), dir); err != nil {
		return nil, err
	}
	args := append([]string{"-w"}, externals...)
	for i, path := range r.sources() {
		args = append(args, "n"+strconv.Itoa(i)+":"+path) // a name space per file, as we do
	}
	if _, err := output(ctx, "yarac", append(args, r.compiled)...); err != nil {
		return nil, err
	}
	l.given = r
	return r, nil
}

// named names rule sets by their directories.
func named(dir string) (string, error) {
	list, err := os.ReadDir(dir)
	if err != nil {
		return "", fmt.Errorf("reading rules: %w", err)
	}
	var sets []string
	for _, e := range list {
		if e.IsDir() {
			sets = append(sets, e.Name())
		}
	}
	if len(sets) == 0 {
		return "the rules of -rules", nil
	}
	return "the public rule sets " + strings.Join(sets, ", "), nil
}

// sources are the files that both get: the built-in rules are always there.
func (r *ruleset) sources() []string {
	list := must(filepath.Glob(filepath.Join(r.dir, "*")))
	return append(list, must(filepath.Glob(filepath.Join(r.dir+"-builtin", "*")))...)
}

// take copies the rule files of a tree that compile alone.
func (r *ruleset) take(ctx context.Context, from fs.FS, dir string) error {
	args := append([]string{"-w"}, externals...)
	err := fs.WalkDir(from, ".", func(path string, d fs.DirEntry, err error) error {
		if ext := filepath.Ext(path); err != nil || !d.Type().IsRegular() || ext != ".yar" && ext != ".yara" {
			return err
		}
		text, err := fs.ReadFile(from, path)
		if err != nil {
			return err
		}
		to := filepath.Join(dir, strings.ReplaceAll(path, "/", "-"))
		if err := os.WriteFile(to, text, 0o644); err != nil {
			return err
		}
		if _, err := output(ctx, "yarac", append(args[:len(args):len(args)], to, r.compiled)...); err != nil {
			r.refused++
			return os.Remove(to)
		}
		r.files++
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading rules: %w", err)
	}
	return nil
}

// must is for patterns that are constant.
func must(paths []string, err error) []string {
	if err != nil {
		panic(err)
	}
	return paths
}
