package config

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestExamplesAreRight parses the YAML examples of the documentation.
func TestExamplesAreRight(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile(filepath.Join("..", "..", "docs", "configuration.md"))
	require.NoError(t, err)
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(b, -1)
	require.NotEmpty(t, examples)
	for _, e := range examples {
		_, err := Parse(e[1])
		require.NoError(t, err, string(e[1]))
	}
}
