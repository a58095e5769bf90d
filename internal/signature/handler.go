package signature

import (
	"net/http"
	"os"
	"path/filepath"
	"regexp"
)

// served matches the names that the handler serves, everything else is not
// found: metadata, manifests and blobs, never keys.
var served = regexp.MustCompile(`^/(metadata/([0-9]{1,19}\.)?(root|targets|snapshot|timestamp)\.json|targets/[0-9a-f]{64}\.bundle\.json|blobs/[0-9a-f]{64})$`)

// Handler serves the repository for clients and mirrors:
//
//	/metadata/…        TUF metadata
//	/targets/HASH.…    manifests
//	/blobs/HASH        contents
//
// with entity tags and ranges. Everything but the timestamp never changes.
func (r *Repository) Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodGet && req.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "method not allowed", http.StatusMethodNotAllowed)
			return
		}
		name := req.URL.Path
		if !served.MatchString(name) {
			http.NotFound(w, req)
			return
		}
		f, err := os.Open(filepath.Join(r.dir, filepath.FromSlash(name)))
		if err != nil {
			http.NotFound(w, req)
			return
		}
		defer func() { _ = f.Close() }() // only read
		st, err := f.Stat()
		if err != nil || !st.Mode().IsRegular() {
			http.NotFound(w, req)
			return
		}
		header := w.Header()
		header.Set("Content-Type", "application/octet-stream")
		if filepath.Ext(name) == ".json" {
			header.Set("Content-Type", "application/json")
		}
		header.Set("Cache-Control", "public, max-age=31536000, immutable")
		tag := filepath.Base(name)
		if tag == "timestamp.json" {
			header.Set("Cache-Control", "no-cache")
			data := make([]byte, min(st.Size(), 1<<20))
			if _, err := f.ReadAt(data, 0); err != nil {
				http.Error(w, "reading the timestamp", http.StatusInternalServerError)
				return
			}
			tag = digestOf(data).String()
		}
		header.Set("ETag", `"`+tag+`"`)
		// Metadata that was signed but never published may be replaced under
		// the same name, but nobody asks for it before it is published.
		http.ServeContent(w, req, "", st.ModTime(), f)
	})
}
