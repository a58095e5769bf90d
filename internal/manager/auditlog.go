package manager

import (
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"strconv"

	"github.com/danielgtaylor/huma/v2"

	"github.com/lazaret/lazaret/api"
)

// maxAuditScan bounds the entries one filtered page looks at.
const maxAuditScan = 20000

type auditIn struct {
	Paging
	Actor    string `query:"actor"`
	Action   string `query:"action"`
	Target   string `query:"target"`
	Decision string `query:"decision" enum:"allowed,denied,failed"`
}

// listAudit returns entries newest first. With a filter a page may be short
// and still have a next one: each looks at a bounded number of entries.
func (m *Manager) listAudit(ctx context.Context, in *auditIn) (*answer[api.Page[api.AuditEntry]], error) {
	if err := m.appender.Flush(ctx); err != nil {
		return nil, err
	}
	end := m.audit.Size()
	if in.PageToken != "" {
		n, err := strconv.ParseInt(in.PageToken, 10, 64)
		if err != nil || n < 0 || n > end {
			return nil, invalid("page_token is not one of this list")
		}
		end = n
	}
	page := api.Page[api.AuditEntry]{Items: []api.AuditEntry{}}
	for looked := 0; end > 0 && len(page.Items) < in.Limit && looked < maxAuditScan; {
		n := min(256, end)
		lines, err := m.audit.Entries(end-n, n)
		if err != nil {
			return nil, err
		}
		for i := len(lines) - 1; i >= 0 && len(page.Items) < in.Limit; i-- {
			looked++
			end--
			var e api.AuditEntry
			if err := json.Unmarshal(lines[i], &e); err != nil {
				return nil, err
			}
			if in.matches(e) {
				page.Items = append(page.Items, e)
			}
		}
	}
	if end > 0 {
		page.NextPageToken = strconv.FormatInt(end, 10)
	}
	return &answer[api.Page[api.AuditEntry]]{page}, nil
}

func (in *auditIn) matches(e api.AuditEntry) bool {
	return (in.Actor == "" || e.Actor == in.Actor) && (in.Action == "" || e.Action == in.Action) &&
		(in.Target == "" || e.Target == in.Target) && (in.Decision == "" || e.Decision == in.Decision)
}

func (m *Manager) checkpoint(ctx context.Context, _ *empty) (*answer[api.AuditCheckpoint], error) {
	if err := m.appender.Flush(ctx); err != nil {
		return nil, err
	}
	cp, size, key := m.audit.Checkpoint()
	return &answer[api.AuditCheckpoint]{api.AuditCheckpoint{Checkpoint: string(cp), Key: key, Size: size}}, nil
}

type proveIn struct {
	Index int64 `path:"index" minimum:"0"`
}

func (m *Manager) prove(ctx context.Context, in *proveIn) (*answer[api.AuditProof], error) {
	if err := m.appender.Flush(ctx); err != nil {
		return nil, err
	}
	entry, proof, cp, err := m.audit.Prove(in.Index)
	out := api.AuditProof{Index: in.Index, Entry: entry, Checkpoint: string(cp), Proof: []string{}}
	for _, h := range proof {
		out.Proof = append(out.Proof, h.String())
	}
	return &answer[api.AuditProof]{out}, err
}

func (m *Manager) exportAudit(ctx context.Context, _ *empty) (*huma.StreamResponse, error) {
	if err := m.appender.Flush(ctx); err != nil {
		return nil, err
	}
	return raw(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		w.Header().Set("Content-Disposition", `attachment; filename="audit.jsonl"`)
		if err := m.audit.Export(w); err != nil {
			m.Logger.WarnContext(ctx, "audit log was not exported", slog.Any("error", err))
			panic(http.ErrAbortHandler) // the receiver must see that it is cut off
		}
	}), nil
}
