package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Bounds of one stream of policies.
const (
	maxBytes    = 4 << 20
	maxPolicies = 1000
)

// Parse reads policies from YAML (any number of documents) or JSON, over the
// values of Default, and validates them. Unknown keys are errors. All errors
// name the line, and the file if r has a name. It does not look at the expiry
// of exclusions: Decide ignores the expired ones, and ValidateApply refuses
// them where a person applies a policy.
func Parse(r io.Reader) ([]Policy, error) {
	policies, err := parse(r)
	if named, ok := r.(interface{ Name() string }); ok && err != nil {
		return nil, fmt.Errorf("reading policies from %s: %w", named.Name(), err)
	}
	if err != nil {
		return nil, fmt.Errorf("reading policies: %w", err)
	}
	return policies, nil
}

// ParseFile is Parse for the file at path.
func ParseFile(path string) ([]Policy, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading policies: %w", err)
	}
	defer f.Close()
	return Parse(f)
}

func parse(r io.Reader) ([]Policy, error) {
	b, err := io.ReadAll(io.LimitReader(r, maxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(b) > maxBytes {
		return nil, fmt.Errorf("more than %d bytes", maxBytes)
	}
	b = jsonEscapes(b)
	// The same text is decoded twice: into nodes, which know their lines, and
	// strictly into the resource, which knows its keys.
	nodes, resources := yaml.NewDecoder(bytes.NewReader(b)), yaml.NewDecoder(bytes.NewReader(b))
	resources.KnownFields(true)
	var policies []Policy
	var errs []error
	seen := map[string]int{}
	for {
		var node yaml.Node
		if err := nodes.Decode(&node); errors.Is(err, io.EOF) {
			return policies, errors.Join(errs...)
		} else if err != nil {
			return nil, errors.Join(append(errs, plain(err))...)
		}
		// Decoded over the defaults, but without a name, so that a missing name,
		// kind or version is noticed.
		p := Policy{Spec: Default().Spec}
		if err := resources.Decode(&p); err != nil {
			return nil, errors.Join(append(errs, withLine(&node, plain(err)))...)
		}
		if empty(&node) {
			continue // "---" with nothing behind it
		}
		for _, problem := range p.problems() {
			errs = append(errs, fmt.Errorf("line %d: %w", lineOf(&node, problem.path), problem))
		}
		if first, ok := seen[p.Name()]; ok {
			errs = append(errs, fmt.Errorf("line %d: policy %q is already in line %d", node.Line, p.Name(), first))
		}
		seen[p.Name()] = node.Line
		if policies = append(policies, p); len(policies) > maxPolicies {
			return nil, fmt.Errorf("more than %d policies", maxPolicies)
		}
	}
}

func empty(n *yaml.Node) bool {
	return n.Kind == yaml.DocumentNode && len(n.Content) == 1 && n.Content[0].Tag == "!!null"
}

var unknownField = regexp.MustCompile(`field (\S+) not found in type \S+`)

// plain rewrites the decoder's errors for people: no Go types.
func plain(err error) error {
	text := unknownField.ReplaceAllString(err.Error(), `unknown key "$1"`)
	text = strings.TrimPrefix(text, "yaml: ")
	text = strings.TrimPrefix(text, "unmarshal errors:\n  ")
	return errors.New(text)
}

// withLine adds a line to an error that has none, such as that of a time: the
// line of the value it quotes.
func withLine(n *yaml.Node, err error) error {
	if strings.HasPrefix(err.Error(), "line ") {
		return err
	}
	if n.Kind == yaml.ScalarNode && n.Value != "" && strings.Contains(err.Error(), strconv.Quote(n.Value)) {
		return fmt.Errorf("line %d: %w", n.Line, err)
	}
	for _, child := range n.Content {
		if found := withLine(child, err); found != err {
			return found
		}
	}
	return err
}

// jsonEscape matches an escape sequence in JSON text; a pair of surrogates is
// one.
var jsonEscape = regexp.MustCompile(`\\(u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)`)

// jsonEscapes replaces the escapes that JSON has and YAML 1.1 has not.
func jsonEscapes(b []byte) []byte {
	if !json.Valid(b) {
		return b
	}
	return jsonEscape.ReplaceAllFunc(b, func(m []byte) []byte {
		if len(m) == 2 && m[1] != '/' {
			return m
		}
		var s string
		if err := json.Unmarshal(slices.Concat([]byte{'"'}, m, []byte{'"'}), &s); err != nil {
			return m
		}
		return []byte(s)
	})
}

// lineOf returns the line of the value at path, or of its nearest parent that
// is in the text.
func lineOf(n *yaml.Node, path []any) int {
	if n.Kind == yaml.DocumentNode && len(n.Content) > 0 {
		n = n.Content[0]
	}
	for _, step := range path {
		var next *yaml.Node
		switch key := step.(type) {
		case string:
			for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
				if n.Content[i].Value == key {
					next = n.Content[i+1]
				}
			}
		case int:
			if n.Kind == yaml.SequenceNode && key < len(n.Content) {
				next = n.Content[key]
			}
		}
		if next == nil {
			break
		}
		n = next
	}
	return n.Line
}

// MarshalJSON writes the resource with the keys of its YAML form.
func (p Policy) MarshalJSON() ([]byte, error) {
	type plainPolicy Policy
	text, err := yaml.Marshal(plainPolicy(p))
	if err != nil {
		return nil, fmt.Errorf("encoding policy %s: %w", p.Name(), err)
	}
	var tree any
	if err := yaml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("encoding policy %s: %w", p.Name(), err)
	}
	return json.Marshal(tree)
}

// UnmarshalJSON is Parse for exactly one resource.
func (p *Policy) UnmarshalJSON(b []byte) error {
	policies, err := Parse(bytes.NewReader(b))
	if err != nil {
		return err
	}
	if len(policies) != 1 {
		return fmt.Errorf("reading policies: want one resource, got %d", len(policies))
	}
	*p = policies[0]
	return nil
}
