package cli_test

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestChangelogFragments checks their form, see changelog/README.md.
func TestChangelogFragments(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^(Added|Changed|Deprecated|Removed|Fixed|Security): [^\n]{3,80}\n\nLazaret now [^\n]+(\n[^\n]+)*\n$`)
	files, err := filepath.Glob(filepath.Join(root, "changelog", "*", "*.md"))
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, f := range files {
		b, err := os.ReadFile(f)
		require.NoError(t, err)
		require.Regexp(t, form, string(b), f)
	}
}

// TestLicences checks that the licence texts are there and that eBPF programs
// say what they are under.
func TestLicences(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"LICENSE": "Apache License", "LICENSES/Apache-2.0.txt": "Apache License",
		"LICENSES/GPL-2.0-only.txt": "GNU GENERAL PUBLIC LICENSE", "LICENSES/BSD-2-Clause.txt": "Redistribution and use",
	} {
		require.Contains(t, document(t, name), text)
	}
	programs, err := filepath.Glob(filepath.Join(root, "bpf", "*.c"))
	require.NoError(t, err)
	require.NotEmpty(t, programs)
	for _, p := range programs {
		b, err := os.ReadFile(p)
		require.NoError(t, err)
		require.Regexp(t, `^// SPDX-License-Identifier: \(GPL-2\.0-only OR BSD-2-Clause\)\n`, string(b), p)
	}
}
