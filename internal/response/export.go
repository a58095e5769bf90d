package response

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/lazaret/lazaret/internal/response/zipaes"
	"github.com/lazaret/lazaret/internal/threat"
)

// Export writes an item as a zip archive encrypted with a password (WinZip
// AES-256): the content under its name and the item's record as lazaret.json.
func (v *Vault) Export(ctx context.Context, id, password string, w io.Writer) error {
	fail := func(err error) error { return fmt.Errorf("exporting quarantine item %s: %w", id, err) }
	item, err := v.Get(ctx, id)
	if err != nil {
		return fail(err)
	}
	r, err := v.Open(ctx, id)
	if err != nil {
		return fail(err)
	}
	defer r.Close()
	record, err := json.MarshalIndent(&item, "", "  ")
	if err != nil {
		return fail(err)
	}
	archive, err := zipaes.NewWriter(w, password)
	if err != nil {
		return fail(err)
	}
	if err := archive.Add(memberName(&item), item.ModTime, item.Size, r); err != nil {
		return fail(err)
	}
	if err := archive.Add("lazaret.json", item.Taken, int64(len(record)), bytes.NewReader(record)); err != nil {
		return fail(err)
	}
	if err := archive.Close(); err != nil {
		return fail(err)
	}
	return nil
}

// memberName returns a name that no tool takes for a path, a drive or a flag.
// The suffix keeps it from being run by a double click.
func memberName(item *Item) string {
	name := strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, threat.Printable(path.Base(string(item.Path))))
	return item.Object.String()[:16] + "-" + name + ".quarantined"
}
