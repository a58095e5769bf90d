package manager

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/signature"
)

// maxSources bounds the files of one import.
const maxSources = 20000

func (m *Manager) listBundles(ctx context.Context, _ *empty) (*answer[api.Page[api.Bundle]], error) {
	list, err := m.Repository.List()
	if list == nil {
		list = []api.Bundle{}
	}
	return &answer[api.Page[api.Bundle]]{api.Page[api.Bundle]{Items: list}}, err
}

type importIn struct {
	Comment string `query:"comment" maxLength:"1024"`
	DryRun  bool   `query:"dry_run" doc:"compile and test, publish nothing"`
}

// importSignatures unpacks the sources into a private directory, has them
// compiled and tested, and tells the nodes about the new bundle.
func (m *Manager) importSignatures(ctx context.Context, in *importIn) (*huma.StreamResponse, error) {
	return &huma.StreamResponse{Body: func(c huma.Context) {
		r, w := humago.Unwrap(c)
		rep, err := m.runImport(ctx, r.Body, in)
		if err != nil {
			m.writeProblem(ctx, w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(detail(rep)) //nolint:errcheck // the caller is gone
	}}, nil
}

func (m *Manager) runImport(ctx context.Context, body io.Reader, in *importIn) (api.ImportReport, error) {
	dir, err := os.MkdirTemp(m.Dir, "import-")
	if err != nil {
		return api.ImportReport{}, fmt.Errorf("making import directory: %w", err)
	}
	defer os.RemoveAll(dir)
	if err := untar(body, dir, maxImport); err != nil {
		return api.ImportReport{}, err
	}
	by := callOf(ctx).principal.Name
	rep, err := m.Importer.Import(ctx, Import{By: by, Comment: in.Comment, DryRun: in.DryRun, Dir: dir})
	if err != nil {
		return rep, err
	}
	target := "dry run"
	if rep.Bundle != nil {
		target = fmt.Sprintf("bundle/%d", rep.Bundle.Epoch)
	}
	return rep, m.published(ctx, target, in.Comment, map[string]any{
		"rules": rep.Rules, "hashes": rep.Hashes, "errors": len(rep.Errors), "self_test": rep.SelfTest,
	}, rep.Bundle != nil)
}

// published audits a change of the repository and tells the nodes.
func (m *Manager) published(ctx context.Context, target, reason string, about any, changed bool) error {
	return m.change(ctx, func(tx *store.Tx, e *api.AuditEntry) error {
		e.Target, e.Reason, e.Detail = target, reason, detail(about)
		if !changed {
			return nil
		}
		return m.reconfigure(ctx, tx, e.Actor, target)
	})
}

// untar writes the regular files of a tar archive below dir. Names that leave
// it, links and devices are refused. The body's size is bounded by its reader,
// that of the files here: a sparse one may be all holes.
func untar(r io.Reader, dir string, room int64) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return fmt.Errorf("opening import directory: %w", err)
	}
	defer root.Close()
	t := tar.NewReader(r)
	for files := 0; ; {
		h, err := t.Next()
		switch {
		case errors.Is(err, io.EOF) && files == 0:
			return invalid("the archive has no files")
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return archiveError(err)
		case h.Typeflag == tar.TypeDir || h.Typeflag == tar.TypeXGlobalHeader:
			continue
		case h.Typeflag != tar.TypeReg:
			return invalid("%q in the archive is not a regular file", h.Name)
		case !filepath.IsLocal(h.Name):
			return invalid("%q in the archive leaves its directory", h.Name)
		}
		if files++; files > maxSources {
			return invalid("the archive has more than %d files", maxSources)
		}
		if err := root.MkdirAll(filepath.Dir(h.Name), 0o700); err != nil {
			return invalid("%q in the archive cannot be written: %v", h.Name, err)
		}
		f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return invalid("%q in the archive cannot be written: %v", h.Name, err)
		}
		n, err := io.Copy(f, io.LimitReader(t, room+1))
		if err = errors.Join(err, f.Close()); err != nil {
			return archiveError(err)
		}
		if room -= n; room < 0 {
			return invalid("the files in the archive are too large")
		}
	}
}

func archiveError(err error) error {
	if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
		return err
	}
	return invalid("reading the tar archive: %v", err)
}

type rollbackIn struct {
	Body api.RollbackRequest
}

func (m *Manager) rollback(ctx context.Context, in *rollbackIn) (*answer[api.Bundle], error) {
	if err := checkReason(in.Body.Reason); err != nil {
		return nil, err
	}
	b, err := m.Repository.Rollback(ctx, in.Body.Epoch, callOf(ctx).principal.Name, in.Body.Reason)
	if errors.Is(err, signature.ErrNotFound) {
		return nil, problem(http.StatusNotFound, api.ProblemNotFound, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return &answer[api.Bundle]{b}, m.published(ctx, fmt.Sprintf("bundle/%d", b.Epoch), in.Body.Reason, map[string]any{"content_of": in.Body.Epoch}, true)
}

type fetchIn struct {
	Path string `path:"path"`
}

// fetchSignatures serves the TUF repository; its metadata, not this route,
// makes the content trustworthy.
func (m *Manager) fetchSignatures(context.Context, *fetchIn) (*huma.StreamResponse, error) {
	h := http.StripPrefix(api.Prefix+"/signatures/tuf", m.Repository.Handler())
	return raw(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Del("Cache-Control") // the repository says what may be kept
		h.ServeHTTP(w, r)
	}), nil
}

// AfterPublish tells the nodes about a bundle that was published without a
// request, such as the built-in one at first start.
func (m *Manager) AfterPublish(ctx context.Context, b api.Bundle) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	return m.store.Update(ctx, func(tx *store.Tx) error {
		e := api.AuditEntry{Actor: b.By, Action: "signatures.publish", Target: fmt.Sprintf("bundle/%d", b.Epoch), Decision: "allowed", Reason: b.Comment}
		if err := tx.Audit(ctx, e); err != nil {
			return err
		}
		return m.reconfigure(ctx, tx, b.By, "bundle published")
	})
}
