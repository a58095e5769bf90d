package program

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/lazaret/lazaret/internal/engine/ruleset"
	"github.com/lazaret/lazaret/internal/engine/sandbox"
	"github.com/lazaret/lazaret/internal/engine/worker"
	"github.com/lazaret/lazaret/internal/engine/yara"
)

const (
	maxRequest  = 1 << 30
	maxCompiled = 2 << 30
	maxMemory   = 4 << 30
)

// Compile reads a worker.CompileRequest from in, writes the compiled rules to
// the inherited descriptors and a worker.CompileReport to out.
func Compile(in io.Reader, out io.Writer) error {
	report, err := sandbox.Enter(sandbox.Config{
		FileSize: maxCompiled, Data: maxMemory, Namespaces: os.Getenv(worker.NamespacesVariable) != "",
	})
	if err != nil {
		return fmt.Errorf("locking the compiler down: %w", err)
	}
	answer, err := compile(in)
	if err != nil {
		answer = &worker.CompileReport{Failure: err.Error()}
	}
	answer.Sandbox = report
	if err := json.NewEncoder(out).Encode(answer); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	return nil
}

func compile(in io.Reader) (*worker.CompileReport, error) {
	var request worker.CompileRequest
	if err := json.NewDecoder(bufio.NewReader(io.LimitReader(in, maxRequest))).Decode(&request); err != nil {
		return nil, fmt.Errorf("reading the sources: %w", err)
	}
	sources := make([]ruleset.Source, len(request.Sources))
	for i, s := range request.Sources {
		sources[i] = ruleset.Source{Name: s.Name, Text: s.Text}
	}
	compiled, err := yara.Compile(sources)
	if err != nil {
		return nil, err
	}
	defer compiled.Close()
	report := &worker.CompileReport{Rules: len(compiled.Rules), Errors: compiled.Errors,
		Warnings: compiled.Warnings, Classes: map[string]int{}}
	for i, name := range worker.CompiledFiles {
		f := os.NewFile(uintptr(3+i), name)
		w := bufio.NewWriter(f)
		if err := writeFile(compiled, i, w); err != nil {
			return nil, err
		}
		if err := w.Flush(); err != nil {
			return nil, fmt.Errorf("writing %s: %w", name, err)
		}
	}
	for class, n := range compiled.Classes {
		report.Classes[class.String()] = n
	}
	return report, nil
}

// writeFile writes the i-th of worker.CompiledFiles: one per class in the
// order of ruleset.Classes, then the descriptions.
func writeFile(compiled *yara.Compiled, i int, w io.Writer) error {
	if i < len(ruleset.Classes) {
		return compiled.Write(ruleset.Classes[i], w)
	}
	if err := json.NewEncoder(w).Encode(compiled.Rules); err != nil {
		return fmt.Errorf("writing the rules' descriptions: %w", err)
	}
	return nil
}
