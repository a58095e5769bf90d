//go:build !privileged

package supervisor

import (
	"os"
	"strings"
	"testing"
)

func TestMain(m *testing.M) {
	if kind, log, ok := strings.Cut(os.Getenv(envService), " "); ok {
		os.Exit(service(kind, log))
	}
	os.Exit(m.Run())
}
