package yara

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/lazaret/lazaret/internal/engine"
)

// BenchmarkInspect measures the cost per object with 500 rules, of which a
// script needs a tenth.
func BenchmarkInspect(b *testing.B) {
	var text strings.Builder
	text.WriteString("import \"pe\"\n")
	for i := range 500 {
		condition := "uint16(0) == 0x5A4D and any of them"
		if i%10 == 0 {
			condition = "any of them or pe.imphash() == \"0\""
		}
		fmt.Fprintf(&text, "rule r%d { strings: $a = \"some text %d\" $b = { 6a %02x 58 %02x 90 cd } condition: %s }\n", i, i*7919, i%256, i/256, condition)
	}
	s := scanner(b, compileText(b, text.String()))
	for _, size := range []int{64, 4 << 10, 1 << 20} {
		b.Run(fmt.Sprintf("size=%d", size), func(b *testing.B) {
			c := &engine.Content{Data: []byte(strings.Repeat("echo some words; ", size/17+1)[:size]), Size: int64(size)}
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := s.Inspect(context.Background(), c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
