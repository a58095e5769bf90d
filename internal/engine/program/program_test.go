package program

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/engine/worker"
	"github.com/lazaret/lazaret/internal/threat"
)

// TestMain lets the test binary be lazaret-engine, so that unit tests run the
// real thing without a build.
func TestMain(m *testing.M) {
	if len(os.Args) == 2 {
		var err error
		switch os.Args[1] {
		case "worker":
			err = Worker()
		case "compile":
			err = Compile(os.Stdin, os.Stdout)
		default:
			os.Exit(m.Run())
		}
		if err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// bundle compiles rules and hashes into a directory as package signature does.
func bundle(t testing.TB, rules string, hashes ...hashset.Entry) (string, *worker.CompileReport) {
	t.Helper()
	dir := t.TempDir()
	report, err := worker.Compile(context.Background(), os.Args[0],
		worker.CompileRequest{Sources: []worker.Source{{Name: "rules.yar", Text: []byte(rules)}}}, dir)
	require.NoError(t, err)
	if len(hashes) > 0 {
		f, err := os.Create(filepath.Join(dir, hashset.SHA256.File()))
		require.NoError(t, err)
		defer f.Close()
		_, err = hashset.Build(f, hashset.SHA256, dir, func(yield func(hashset.Entry, error) bool) {
			for _, h := range hashes {
				if !yield(h, nil) {
					return
				}
			}
		})
		require.NoError(t, err)
		report.Files[hashset.SHA256.File()] = "unchecked here"
	}
	manifest, err := json.Marshal(map[string]any{"epoch": 3, "files": report.Files})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "manifest.json"), manifest, 0o600))
	return dir, report
}

func pool(t testing.TB, dir string) *worker.Pool {
	t.Helper()
	p, err := worker.New(worker.Config{Program: os.Args[0], Bundle: dir, Epoch: 3, Processes: 1, Grace: 500 * time.Millisecond})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.Close()) })
	return p
}

func examine(t testing.TB, p *worker.Pool, content []byte, l engine.Limits) *engine.Result {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(path, content, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	r, err := p.Inspect(context.Background(), f, l)
	require.NoError(t, err)
	return r
}

func zipped(t *testing.T, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create(name)
	require.NoError(t, err)
	_, err = f.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

const harmless = `rule Needle { meta: description = "a needle" severity = "high" technique = "T1496" author = "me"
	strings: $a = "needle in the hay" condition: $a }
rule Mark { meta: severity = "informational" strings: $a = "marked" condition: $a }
rule Broken {
	condition: nothing }
`

func TestEndToEnd(t *testing.T) {
	t.Parallel()
	known := []byte("a known bad file")
	clean := threat.Object{}
	entry := hashset.Entry{Name: "Known.Bad", Severity: threat.Critical, Size: hashset.AnySize}
	entry.Key = append(entry.Key, hash(known)...)
	dir, report := bundle(t, harmless, entry)
	require.Equal(t, 2, report.Rules)
	require.Equal(t, map[string]int{"other": 2, "elf": 2, "pe": 2}, report.Classes)
	require.Len(t, report.Errors, 1)
	require.Equal(t, api.ImportError{File: "rules.yar", Line: 5, Rule: "Broken", Text: report.Errors[0].Text}, report.Errors[0])
	require.True(t, report.Sandbox.Seccomp)
	described, err := os.ReadFile(filepath.Join(dir, "rules.json"))
	require.NoError(t, err)
	require.JSONEq(t, `[{"name":"Mark","severity":"informational"},{"name":"Needle","severity":"high","technique":"T1496",
		"description":"a needle","author":"me"}]`, string(described))

	p := pool(t, dir)
	ready := p.Stats().Ready
	require.Equal(t, 2, ready.Rules)
	require.EqualValues(t, 1, ready.Hashes)

	needle := []byte("#!/bin/sh\n# needle in the hay\n")
	tests := map[string]struct {
		content []byte
		verdict threat.Verdict
		members int
		names   string
	}{
		"clean":            {[]byte("nothing here"), threat.Clean, 0, ""},
		"empty":            {nil, threat.Clean, 0, ""},
		"script":           {needle, threat.Malicious, 0, "Needle"},
		"ELF":              {append([]byte("\x7fELF\x02\x01\x01"), needle...), threat.Malicious, 0, "Needle"},
		"PE":               {append([]byte("MZ"), needle...), threat.Malicious, 0, "Needle"},
		"informational":    {[]byte("marked"), threat.Clean, 0, "Mark"},
		"hash":             {known, threat.Malicious, 0, "Known.Bad"},
		"in a zip":         {zipped(t, "a.sh", needle), threat.Malicious, 1, "Needle"},
		"hash in a zip":    {zipped(t, "a", known), threat.Malicious, 1, "Known.Bad"},
		"zip in a zip":     {zipped(t, "b.zip", zipped(t, "a.sh", needle)), threat.Malicious, 2, "Needle"},
		"behind a program": {append([]byte("\x7fELF\x02\x01\x01"), zipped(t, "a.sh", needle)...), threat.Malicious, 1, "Needle"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			r := examine(t, p, test.content, engine.Limits{})
			require.Equal(t, test.verdict, r.Verdict(), "%+v", r.Objects)
			require.Len(t, r.Objects, 1+test.members)
			var names []string
			for _, o := range r.Objects {
				for _, d := range o.Detections {
					names = append(names, d.Signature)
				}
			}
			require.Contains(t, strings.Join(names, " "), test.names)
			require.Equal(t, threat.Hash(hash(test.content)), r.Objects[0].Hash)
			clean = r.Objects[0]
		})
	}
	require.NotEmpty(t, clean.Type)
	require.Zero(t, p.Stats().Crashes)
}

// Nested repetitions keep libyara busy far beyond its own timeout: it looks at
// the clock only between matches (measured: five times too late).
const explosive = `rule Explosive { strings: $a = /abcd(.{0,400}e){3}z/s $b = /bcda(.{0,300}e){3}y/s condition: any of them }`

func TestWatchdogEndsExplodingExpression(t *testing.T) {
	t.Parallel()
	dir, report := bundle(t, explosive)
	require.Empty(t, report.Errors)
	p := pool(t, dir)
	start := time.Now()
	r := examine(t, p, bytes.Repeat([]byte("abcde"), 1<<17), engine.Limits{Time: time.Second})
	require.Less(t, time.Since(start), 10*time.Second)
	require.Equal(t, threat.Partial, r.Verdict(), "%+v", r)
	require.Equal(t, threat.ReasonEngineTimeout, r.Objects[0].Reasons[0].Code)
	require.EqualValues(t, 1, p.Stats().Timeouts, "libyara itself came to an end: the test proves nothing")
	require.Equal(t, threat.Clean, examine(t, p, []byte("xyz"), engine.Limits{}).Verdict())
}

func TestDamagedBundleIsRefused(t *testing.T) {
	t.Parallel()
	dir, _ := bundle(t, harmless)
	path := filepath.Join(dir, "other.yarc")
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, b[:len(b)-1], 0o600))
	_, err = worker.New(worker.Config{Program: os.Args[0], Bundle: dir, Processes: 1})
	require.ErrorContains(t, err, "loading the compiled rules of class other: the file is damaged")
}

func TestCompileRefusesRubbish(t *testing.T) {
	t.Parallel()
	_, err := compile(strings.NewReader("{"))
	require.ErrorContains(t, err, "reading the sources")
	_, err = compile(io.MultiReader())
	require.ErrorContains(t, err, "reading the sources")
}

func BenchmarkSmallFile(b *testing.B) {
	dir, _ := bundle(b, harmless)
	p := pool(b, dir)
	path := filepath.Join(b.TempDir(), "file")
	require.NoError(b, os.WriteFile(path, bytes.Repeat([]byte("some text\n"), 400), 0o600))
	f, err := os.Open(path)
	require.NoError(b, err)
	defer f.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := p.Inspect(context.Background(), f, engine.Limits{}); err != nil {
			b.Fatal(err)
		}
	}
}

func hash(b []byte) []byte {
	h := sha256.Sum256(b)
	return h[:]
}
