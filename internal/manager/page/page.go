// Package page holds the few pages the manager serves itself.
package page

import (
	"crypto/sha256"
	_ "embed" // for the pages
	"encoding/base64"
	"net/http"
	"regexp"
)

//go:embed setup.html
var setup []byte

var inline = regexp.MustCompile(`(?s)<(script|style)>(.*?)</(?:script|style)>`)

// Setup serves the page behind the set-up link. Its token is in the fragment,
// which browsers do not send; only this very script and style may run.
func Setup() http.Handler {
	policy := "default-src 'none'; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
	for _, m := range inline.FindAllSubmatch(setup, -1) {
		sum := sha256.Sum256(m[2])
		policy += "; " + string(m[1]) + "-src 'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", policy)
		h.Set("Cache-Control", "no-store")
		h.Set("Referrer-Policy", "no-referrer")
		_, _ = w.Write(setup) // the caller is gone
	})
}
