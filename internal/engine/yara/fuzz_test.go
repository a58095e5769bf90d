package yara

import (
	"bytes"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/engine/ruleset"
)

// FuzzReadRules checks that nothing but what Write made reaches libyara, which
// crashes on damage.
func FuzzReadRules(f *testing.F) {
	var b bytes.Buffer
	require.NoError(f, compileText(f, "rule r { condition: true }").Write(ruleset.Other, &b))
	good := bytes.Clone(b.Bytes())
	f.Add(good[:headerSize])
	f.Add(good[:len(good)/2])
	f.Add([]byte(fileMagic))
	f.Fuzz(func(t *testing.T, data []byte) {
		rules, err := readRules(bytes.NewReader(data))
		if err == nil {
			rules.Destroy()
			if !bytes.HasPrefix(data, good) {
				t.Fatal("something else was loaded")
			}
		}
	})
}
