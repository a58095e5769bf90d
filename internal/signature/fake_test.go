package signature

import (
	"bytes"
	"context"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/engine/ruleset"
	"github.com/lazaret/lazaret/internal/signature/builtin"
	"github.com/lazaret/lazaret/internal/threat"
)

// fakeCompiler compiles a language of one rule per line: "NAME text", which
// matches content that contains the text. A line with one word is an error.
type fakeCompiler struct{ err error }

func (f fakeCompiler) Compile(_ context.Context, sources []ruleset.Source, dir string) (*Compilation, error) {
	if f.err != nil {
		return nil, f.err
	}
	var (
		c   Compilation
		out bytes.Buffer
	)
	for _, s := range sources {
		for i, line := range strings.Split(strings.TrimSpace(string(s.Text)), "\n") {
			if _, _, ok := strings.Cut(line, " "); !ok {
				c.Errors = append(c.Errors, api.ImportError{File: s.Name, Line: i + 1, Text: "syntax error"})
				continue
			}
			c.Rules++
			out.WriteString(line + "\n")
		}
	}
	return &c, os.WriteFile(filepath.Join(dir, "other.yarc"), out.Bytes(), 0o600)
}

// fakeInspection inspects with what fakeCompiler compiled and real hash sets.
type fakeInspection struct {
	rules  string
	hashes *hashset.Engine
	crash  string // content that crashes the engine
}

func newFakeInspection(dir string) (*fakeInspection, error) {
	rules, err := os.ReadFile(filepath.Join(dir, "other.yarc"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	var sets []*hashset.Set
	for _, a := range hashset.Algorithms {
		f, err := os.Open(filepath.Join(dir, a.File()))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		s, err := hashset.Open(f)
		if err != nil {
			return nil, err
		}
		sets = append(sets, s)
	}
	hashes, err := hashset.NewEngine(sets...)
	return &fakeInspection{rules: string(rules), hashes: hashes}, err
}

func (f *fakeInspection) Close() error { return f.hashes.Close() }

func (f *fakeInspection) Inspect(ctx context.Context, file *os.File, _ engine.Limits) (*engine.Result, error) {
	data, err := io.ReadAll(io.NewSectionReader(file, 0, 1<<30))
	if err != nil {
		return nil, err
	}
	o := threat.Object{Verdict: threat.Clean, Size: int64(len(data))}
	if f.crash != "" && strings.Contains(string(data), f.crash) {
		o.Verdict = threat.Suspicious
		o.Reasons = []threat.Reason{{Code: threat.ReasonEngineCrashed, Text: "it crashed the engine"}}
		return &engine.Result{Objects: []threat.Object{o}}, nil
	}
	for line := range strings.Lines(f.rules) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), " ")
		if strings.Contains(string(data), text) {
			o.Detections = append(o.Detections, threat.Detection{Signature: name, Severity: threat.High})
		}
	}
	s1, s5 := sha1.Sum(data), md5.Sum(data)
	found, err := f.hashes.Inspect(ctx, &engine.Content{Size: o.Size, SHA256: sha256.Sum256(data), SHA1: &s1, MD5: &s5})
	o.Detections = append(o.Detections, found...)
	for _, d := range o.Detections {
		o.Verdict = threat.Worst(o.Verdict, d.Severity.Verdict())
	}
	return &engine.Result{Objects: []threat.Object{o}}, err
}

// fakeImporter imports into r with the fakes and a small corpus.
func fakeImporter(r *Repository, temp string, good ...string) *Importer {
	return NewImporter(ImporterConfig{
		Repository: r, Compiler: fakeCompiler{}, TempDir: temp,
		Inspect: func(_ context.Context, dir string, _ threat.Epoch) (Inspection, error) { return newFakeInspection(dir) },
		Corpus: Corpus{Good: good, Samples: []builtin.Sample{
			{Name: "bad sample", Signature: "Bad", Data: []byte("something evil here")},
			{Name: "good sample", Data: []byte("harmless")},
			{Name: "twin", Twin: true, Data: []byte("talks about it")},
		}},
	})
}
