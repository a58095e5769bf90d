package signature

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/engine/ruleset"
	"github.com/lazaret/lazaret/internal/signature/hashlist"
	"github.com/lazaret/lazaret/internal/threat"
)

// Compiler compiles YARA sources in a sandboxed process, because rules come
// from strangers. It writes its files into dir and reports what it left out;
// an error means that nothing could be compiled. Sandboxed implements it.
type Compiler interface {
	Compile(ctx context.Context, sources []ruleset.Source, dir string) (*Compilation, error)
}

// Compilation is what a Compiler did.
type Compilation struct {
	Rules  int
	Errors []api.ImportError // rules that were left out, by source name and line
}

// maxRuleText bounds the rules of one bundle, in bytes: they are in memory
// while they are compiled.
const maxRuleText = 512 << 20

// maxErrors bounds what is remembered about refused rules and lines.
const maxErrors = 1000

// compileInto makes a compiled bundle in the empty directory dir: the files
// first, the manifest last, everything durable.
func compileInto(ctx context.Context, b *Bundle, compiler Compiler, dir string) (*CompiledManifest, []api.ImportError, error) {
	m := &CompiledManifest{Epoch: b.Manifest.Epoch, Source: b.Digest, Files: map[string]threat.Hash{}}
	errs, err := compileRules(ctx, b, compiler, dir, m)
	if err != nil {
		return nil, nil, err
	}
	for _, a := range hashset.Algorithms {
		more, err := compileHashes(ctx, b, a, dir, m)
		if err != nil {
			return nil, nil, err
		}
		errs = append(errs, more...)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("compiling bundle %d: %w", m.Epoch, err)
	}
	for _, e := range entries {
		if m.Files[e.Name()], err = seal(filepath.Join(dir, e.Name())); err != nil {
			return nil, nil, fmt.Errorf("compiling bundle %d: %w", m.Epoch, err)
		}
	}
	// Building large sets leaves memory behind that the service should not keep.
	debug.FreeOSMemory()
	data, err := json.Marshal(m)
	if err != nil {
		return nil, nil, fmt.Errorf("compiling bundle %d: %w", m.Epoch, err)
	}
	return m, errs, writeFile(filepath.Join(dir, compiledManifest), data, noStep)
}

func compileRules(ctx context.Context, b *Bundle, compiler Compiler, dir string, m *CompiledManifest) ([]api.ImportError, error) {
	var (
		sources []ruleset.Source
		total   int64
	)
	for _, s := range b.Manifest.Sources {
		if s.Kind != KindYARA {
			continue
		}
		if total += s.Size; total > maxRuleText {
			return nil, fmt.Errorf("compiling bundle %d: its rules have more than %d bytes", m.Epoch, maxRuleText)
		}
		text, err := b.blobs.read(s)
		if err != nil {
			return nil, fmt.Errorf("compiling bundle %d: %w", m.Epoch, err)
		}
		sources = append(sources, ruleset.Source{Name: s.Name, Text: text})
	}
	if len(sources) == 0 {
		return nil, nil
	}
	c, err := compiler.Compile(ctx, sources, dir)
	if err != nil {
		return nil, fmt.Errorf("compiling bundle %d: %w", m.Epoch, err)
	}
	m.Rules = c.Rules
	return c.Errors, nil
}

// compileHashes builds the set of one algorithm from all lists that have it.
func compileHashes(ctx context.Context, b *Bundle, a hashset.Algorithm, dir string, m *CompiledManifest) (errs []api.ImportError, err error) {
	lists := slices.DeleteFunc(slices.Clone(b.Manifest.Sources), func(s Source) bool { return !slices.Contains(s.Algorithms, a) })
	if len(lists) == 0 {
		return nil, nil
	}
	refused := func(e api.ImportError) {
		if len(errs) < maxErrors {
			errs = append(errs, e)
		}
	}
	f, err := os.OpenFile(filepath.Join(dir, a.File()), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("compiling bundle %d: %w", m.Epoch, err)
	}
	sum, err := hashset.Build(f, a, dir, entriesOf(ctx, b.blobs, lists, a, refused))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("compiling bundle %d: %w", m.Epoch, err)
	}
	m.Hashes += sum.Entries
	return errs, nil
}

// entriesOf yields the entries of one algorithm of all lists; lists are
// verified while they are read.
func entriesOf(ctx context.Context, from blobs, lists []Source, a hashset.Algorithm, refused func(api.ImportError)) iter.Seq2[hashset.Entry, error] {
	return func(yield func(hashset.Entry, error) bool) {
		for _, s := range lists {
			r, err := from.open(s)
			if err != nil {
				yield(hashset.Entry{}, err)
				return
			}
			reader := hashlist.Reader{File: s.Name, Format: hashlist.Canonical, Refused: refused}
			for e, err := range reader.Entries(readerContext{ctx, r}) {
				if err == nil && len(e.Key) != a.Size() {
					continue
				}
				if !yield(e, err) {
					_ = r.Close() // only read
					return
				}
			}
			_ = r.Close() // only read
		}
	}
}

// seal makes a file durable and returns its digest.
func seal(path string) (threat.Hash, error) {
	f, err := os.Open(path)
	if err != nil {
		return threat.Hash{}, err
	}
	sum := sha256.New()
	_, err = io.Copy(sum, bufio.NewReaderSize(f, 1<<20))
	return threat.Hash(sum.Sum(nil)), errors.Join(err, f.Sync(), f.Close())
}
