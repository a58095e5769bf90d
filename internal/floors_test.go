// Package internal holds the test that keeps the house in order: which package
// may import which, and that each says what it is for.
package internal

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "github.com/lazaret/lazaret/"

// floors lists the first path element(s) of every package, lowest floor first.
// A package may import packages of lower floors and of its own group.
var floors = [][]string{
	{"internal/threat", "internal/event", "internal/condition", "internal/sqlite", "internal/task", "api"},
	{"internal/engine", "internal/signature", "internal/workload", "internal/policy"},
	{"internal/scan", "internal/driver", "internal/response", "internal/config"},
	{"internal/manager", "internal/node"},
	{"internal/cli"},
	{"cmd", "test", "bench"},
}

// sameFloor lists the imports inside one floor that are part of the design:
// wire types speak the words of threat, compiled signatures are hash sets and
// rules.
var sameFloor = map[string][]string{
	"internal/condition": {"internal/threat"},
	"api":                {"internal/threat"},
	"internal/signature": {"internal/engine"},
	"internal/policy":    {"internal/engine"},
}

func locate(pkg string) (floor int, group string) {
	for i, groups := range floors {
		for _, g := range groups {
			if pkg == g || strings.HasPrefix(pkg, g+"/") {
				return i, g
			}
		}
	}
	return -1, ""
}

func TestFloors(t *testing.T) {
	t.Parallel()
	walkPackages(t, func(dir string, files []string) {
		floor, group := locate(dir)
		if dir == "internal" {
			return
		}
		require.GreaterOrEqual(t, floor, 0, "%s is on no floor: add it to docs/architecture.md and here", dir)
		for _, f := range files {
			if strings.HasSuffix(f, "_test.go") {
				continue // tests may reach up for fakes and real parts
			}
			ast, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.ImportsOnly)
			require.NoError(t, err)
			for _, imp := range ast.Imports {
				path, ok := strings.CutPrefix(strings.Trim(imp.Path.Value, `"`), module)
				if !ok {
					continue
				}
				other, otherGroup := locate(path)
				ok = other < floor || otherGroup == group
				for _, g := range sameFloor[group] {
					ok = ok || otherGroup == g
				}
				require.True(t, ok, "%s (floor %d) must not import %s (floor %d)", f, floor, path, other)
			}
		}
	})
}

func TestPackageComments(t *testing.T) {
	t.Parallel()
	walkPackages(t, func(dir string, files []string) {
		for _, f := range files {
			ast, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.PackageClauseOnly|parser.ParseComments)
			require.NoError(t, err)
			if ast.Doc != nil && len(ast.Doc.Text()) > 20 {
				return
			}
		}
		t.Errorf("%s: no file has a package comment", dir)
	})
}

// walkPackages calls f for every directory of the repository with Go files;
// paths are relative to the repository's root.
func walkPackages(t *testing.T, f func(dir string, files []string)) {
	t.Helper()
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	packages := map[string][]string{}
	require.NoError(t, fs.WalkDir(os.DirFS(root), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (name == "testdata" || name == "node_modules" || (strings.HasPrefix(name, ".") && name != ".")) {
			return fs.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(name, ".go") {
			dir := filepath.Dir(path)
			packages[dir] = append(packages[dir], filepath.Join(root, path))
		}
		return nil
	}))
	require.NotEmpty(t, packages)
	for dir, files := range packages {
		f(filepath.ToSlash(dir), files)
	}
}
