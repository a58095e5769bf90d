package signature

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/engine"
	"github.com/lazaret/lazaret/internal/engine/hashset"
	"github.com/lazaret/lazaret/internal/signature/builtin"
	"github.com/lazaret/lazaret/internal/signature/hashlist"
	"github.com/lazaret/lazaret/internal/threat"
)

// Inspection is an inspector over one compiled bundle, for its self-test.
type Inspection interface {
	engine.Inspector
	Close() error
}

// ImporterConfig says what an import needs.
type ImporterConfig struct {
	Repository *Repository
	Compiler   Compiler
	// Inspect starts an inspector over a compiled directory.
	Inspect func(ctx context.Context, dir string, epoch threat.Epoch) (Inspection, error)
	// Corpus of the self-test; see DefaultCorpus.
	Corpus Corpus
	// TempDir for compiling; empty means the system's.
	TempDir string
}

// Importer turns what people have into bundles: it parses lists, compiles and
// tries the result, and publishes it only if the self-test passes. It is safe
// for concurrent use; imports run one after the other.
type Importer struct {
	c  ImporterConfig
	mu sync.Mutex
}

// NewImporter returns an importer.
func NewImporter(c ImporterConfig) *Importer { return &Importer{c: c} }

// Import describes one import.
type Import struct {
	By      string // who imports, "user:NAME" or "system"
	Comment string
	DryRun  bool // everything but publishing
	// Files to add; a source of the same name is replaced. Rules are
	// recognised by .yar or .yara, lists by name or content, see hashlist.
	Files iter.Seq2[File, error]
	// Remove names sources to drop; a name ending in / drops all below it.
	Remove []string
}

// Import adds and removes sources and publishes the result as the next bundle.
// Refused rules and lines are in the report. A report with SelfTest "failed:
// …" and no bundle means that the result was compiled but not published. The
// error is for what kept the import from being tried at all.
func (i *Importer) Import(ctx context.Context, in Import) (*api.ImportReport, error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	report := &api.ImportReport{}
	added, err := i.stage(ctx, in.Files, report)
	if err != nil {
		return nil, fmt.Errorf("importing signatures: %w", err)
	}
	active := i.c.Repository.Active()
	sources := merge(active, added, in.Remove)
	if len(added) == 0 && len(in.Remove) == 0 {
		report.SelfTest = "not run: nothing to import"
		return report, nil
	}
	m := &Manifest{Epoch: 1, Sources: sources}
	if active != nil {
		if slices.EqualFunc(active.Sources, sources, sameSource) {
			// A new epoch would make every node forget its verdicts.
			b := active.Bundle(true)
			report.Bundle, report.Rules, report.Hashes, report.SelfTest = &b, b.Rules, b.Hashes, "not run: nothing changes"
			return report, nil
		}
		m.Epoch = active.Epoch + 1
	}
	if err := m.validate(); err != nil {
		return nil, fmt.Errorf("importing signatures: %w", err)
	}
	compiled, err := i.try(ctx, m, added, report)
	if err != nil {
		return nil, fmt.Errorf("importing signatures: %w", err)
	}
	report.Rules, report.Hashes = compiled.Rules, compiled.Hashes
	if in.DryRun || report.SelfTest != selfTestPassed {
		return report, nil
	}
	b, err := i.c.Repository.Publish(ctx, Draft{
		By: in.By, Comment: in.Comment, Sources: sources, Rules: compiled.Rules, Hashes: compiled.Hashes,
	})
	if err != nil {
		return nil, fmt.Errorf("importing signatures: %w", err)
	}
	report.Bundle = &b
	return report, nil
}

// Builtin publishes the signatures that come with the program if the active
// bundle does not have exactly these: on the first start and after updates.
func (i *Importer) Builtin(ctx context.Context) (*api.ImportReport, error) {
	current := map[string]threat.Hash{}
	if active := i.c.Repository.Active(); active != nil {
		for _, s := range active.Sources {
			if strings.HasPrefix(s.Name, builtin.Prefix) {
				current[s.Name] = s.SHA256
			}
		}
	}
	var staged api.ImportReport
	wanted, err := i.stage(ctx, FromFS(builtin.Rules(), "."), &staged)
	if err != nil {
		return nil, fmt.Errorf("importing built-in signatures: %w", err)
	}
	same := len(wanted) == len(current)
	for _, s := range wanted {
		same = same && current[s.Name] == s.SHA256
	}
	if same {
		return &staged, nil
	}
	return i.Import(ctx, Import{
		By: "system", Comment: "built-in signatures", Remove: []string{builtin.Prefix},
		Files: FromFS(builtin.Rules(), "."),
	})
}

const selfTestPassed = "passed"

// try compiles a candidate in a temporary directory and tests it.
func (i *Importer) try(ctx context.Context, m *Manifest, added []Source, report *api.ImportReport) (*CompiledManifest, error) {
	dir, err := os.MkdirTemp(i.c.TempDir, "lazaret-import-*")
	if err != nil {
		return nil, fmt.Errorf("making a temporary directory: %w", err)
	}
	defer func() { _ = os.RemoveAll(dir) }() // nothing depends on it
	compiled, errs, err := compileInto(ctx, &Bundle{Manifest: m, blobs: i.c.Repository.blobs}, i.c.Compiler, dir)
	if err != nil {
		return nil, err
	}
	for _, e := range errs {
		// What was refused in earlier imports was reported then.
		if slices.ContainsFunc(added, func(s Source) bool { return s.Name == e.File }) {
			refuse(report, e)
		}
	}
	inspector, err := i.c.Inspect(ctx, dir, m.Epoch)
	if err != nil {
		return nil, fmt.Errorf("starting the self-test: %w", err)
	}
	err = SelfTest(ctx, inspector, i.c.Corpus)
	report.SelfTest = selfTestPassed
	if errors.Is(err, ErrSelfTest) {
		report.SelfTest = strings.Replace(err.Error(), ErrSelfTest.Error(), "failed", 1)
		err = nil
	}
	return compiled, errors.Join(err, inspector.Close())
}

func refuse(report *api.ImportReport, e api.ImportError) {
	if len(report.Errors) < maxErrors {
		report.Errors = append(report.Errors, e)
	}
}

// merge puts added sources over those of the active bundle.
func merge(active *Manifest, added []Source, remove []string) []Source {
	var out []Source
	if active != nil {
		for _, s := range active.Sources {
			replaced := slices.ContainsFunc(added, func(a Source) bool { return a.Name == s.Name })
			removed := slices.ContainsFunc(remove, func(r string) bool {
				return r == s.Name || strings.HasSuffix(r, "/") && strings.HasPrefix(s.Name, r)
			})
			if !replaced && !removed {
				out = append(out, s)
			}
		}
	}
	out = append(out, added...)
	slices.SortFunc(out, func(a, b Source) int { return strings.Compare(a.Name, b.Name) })
	return out
}

func sameSource(a, b Source) bool {
	return a.Name == b.Name && a.Kind == b.Kind && a.SHA256 == b.SHA256
}

// stage stores every file that can be used.
func (i *Importer) stage(ctx context.Context, files iter.Seq2[File, error], report *api.ImportReport) ([]Source, error) {
	var out []Source
	if files == nil {
		return nil, nil
	}
	for f, err := range files {
		if err != nil {
			return nil, err
		}
		if err := CheckName(f.Name); err != nil {
			refuse(report, api.ImportError{File: f.Name, Text: "the name cannot be used"})
			continue
		}
		if slices.ContainsFunc(out, func(s Source) bool { return s.Name == f.Name }) {
			refuse(report, api.ImportError{File: f.Name, Text: "the file comes twice; the first is used"})
			continue
		}
		if len(out) == MaxSources {
			return nil, fmt.Errorf("there are more than %d files", MaxSources)
		}
		s, ok, err := i.stageFile(ctx, f, report)
		if err != nil {
			return nil, err
		}
		if ok {
			out = append(out, s)
		}
	}
	return out, nil
}

func (i *Importer) stageFile(ctx context.Context, f File, report *api.ImportReport) (Source, bool, error) {
	switch strings.ToLower(path.Ext(f.Name)) {
	case ".yar", ".yara":
		limited := &io.LimitedReader{R: f.Content, N: MaxYARASource + 1}
		s, err := i.c.Repository.Stage(ctx, f.Name, KindYARA, limited)
		if err != nil && limited.N <= 0 {
			refuse(report, api.ImportError{File: f.Name, Text: fmt.Sprintf("the file has more than %d bytes", MaxYARASource)})
			return Source{}, false, nil
		}
		return s, err == nil, err
	}
	in := bufio.NewReaderSize(f.Content, 64<<10)
	head, err := in.Peek(32 << 10)
	if err != nil && !errors.Is(err, io.EOF) {
		return Source{}, false, fmt.Errorf("reading %s: %w", f.Name, err)
	}
	format, ok := hashlist.DetectFormat(f.Name, head)
	if !ok {
		refuse(report, api.ImportError{File: f.Name, Text: "neither YARA rules (.yar, .yara) nor a list of hashes"})
		return Source{}, false, nil
	}
	list := newCanonicalList(hashlist.Reader{
		File: f.Name, Format: format, Severity: hashlist.DefaultSeverity(f.Name),
		Refused: func(e api.ImportError) { refuse(report, e) },
	}, in)
	defer list.stop()
	s, err := i.c.Repository.Stage(ctx, f.Name, KindHashes, list)
	if err != nil {
		return Source{}, false, err
	}
	if list.count == 0 {
		refuse(report, api.ImportError{File: f.Name, Text: "the list has no usable hash"})
		return Source{}, false, nil
	}
	s.Count = list.count
	for _, a := range hashset.Algorithms {
		if list.sizes[a.Size()] {
			s.Algorithms = append(s.Algorithms, a)
		}
	}
	return s, true, nil
}
