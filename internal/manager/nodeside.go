package manager

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/threat"
)

type reportIn struct {
	NodeIn
	Body api.Report
}

func (m *Manager) report(ctx context.Context, in *reportIn) (*struct{}, error) {
	if err := checkName("node", in.Node); err != nil {
		return nil, err
	}
	return nil, m.store.Update(ctx, func(tx *store.Tx) error {
		changed, err := tx.PutReport(ctx, in.Node, in.Body)
		if err != nil || !changed {
			return err
		}
		list := in.Body.Conditions
		if list == nil {
			list = []threat.Condition{}
		}
		return tx.Emit(ctx, api.EventConditions, "", api.NodeConditions{Node: in.Node, Conditions: list})
	})
}

type batchIn struct {
	NodeIn
	Body api.Batch
}

// batch takes a node's upload in one transaction; when it is acknowledged it
// is on disk. A batch that was here before is acknowledged without effect.
func (m *Manager) batch(ctx context.Context, in *batchIn) (*struct{}, error) {
	if err := checkName("node", in.Node); err != nil {
		return nil, err
	}
	b := in.Body
	if len(b.ID) == 0 || len(b.ID) > 100 {
		return nil, invalid("the batch's id must have 1 to 100 characters")
	}
	result := "new"
	err := m.store.Update(ctx, func(tx *store.Tx) error {
		fresh, err := tx.SeeBatch(ctx, in.Node, b.ID)
		if err != nil {
			return err
		}
		if !fresh {
			result = "repeated"
			return nil
		}
		i := intake{m: m, tx: tx, node: in.Node, batch: b.ID}
		return i.all(ctx, b)
	})
	if err == nil {
		m.metrics.batches.WithLabelValues(result).Inc()
	}
	return nil, err
}

// intake applies one batch.
type intake struct {
	m     *Manager
	tx    *store.Tx
	node  string
	batch string
}

func (i intake) all(ctx context.Context, b api.Batch) error {
	for _, f := range b.Findings {
		if err := i.finding(ctx, f); err != nil {
			return err
		}
	}
	for _, q := range b.Items {
		if err := i.item(ctx, q); err != nil {
			return err
		}
	}
	for _, s := range b.Scans {
		s.Node = i.node
		if !i.usable(ctx, "scan", s.ID) {
			continue
		}
		stored, err := i.tx.PutScan(ctx, i.batch, s)
		if err != nil {
			return err
		}
		if stored {
			if err := i.tx.Emit(ctx, api.EventScan, "", s); err != nil {
				return err
			}
		}
	}
	for _, r := range b.Results {
		if err := i.result(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// usable skips a record without a sensible id: refusing the batch would make
// the node repeat it for ever and hold back everything behind it.
func (i intake) usable(ctx context.Context, what, id string) bool {
	if id != "" && len(id) <= 100 {
		return true
	}
	i.m.Logger.ErrorContext(ctx, "record in a batch has no usable id", slog.String("node", i.node), slog.String("record", what))
	return false
}

// finding stores a finding and audits the decisions that are new in it: a
// policy's automatic actions are as much evidence as a person's.
func (i intake) finding(ctx context.Context, f threat.Finding) error {
	if !i.usable(ctx, "finding", f.ID) {
		return nil
	}
	f.Node = i.node // a node speaks for itself only
	before, err := i.tx.Finding(ctx, f.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	stored, err := i.tx.PutFinding(ctx, i.batch, f)
	if err != nil {
		return err
	}
	if !stored {
		i.m.Logger.WarnContext(ctx, "older or foreign version of a finding ignored", slog.String("node", i.node), slog.String("finding", f.ID))
		return nil
	}
	for _, d := range f.Decisions {
		if slices.ContainsFunc(before.Decisions, func(o threat.Decision) bool { return sameDecision(o, d) }) {
			continue
		}
		err := i.tx.Audit(ctx, api.AuditEntry{
			Actor: "node:" + i.node, Action: "finding.decision", Target: "finding/" + f.ID, Decision: "allowed", Reason: d.Reason,
			Detail: detail(map[string]any{"action": d.Action, "by": d.By, "at": d.At, "result": d.Result, "object": f.Object, "workload": f.Workload.ID}),
		})
		if err != nil {
			return err
		}
	}
	now, err := i.tx.Finding(ctx, f.ID)
	if err != nil {
		return err
	}
	return i.tx.Emit(ctx, api.EventFinding, f.Workload.Tenant, now.Finding)
}

// sameDecision compares what identifies a decision and its outcome.
func sameDecision(a, b threat.Decision) bool {
	return a.By == b.By && a.Action == b.Action && a.At.Equal(b.At) && a.Result == b.Result
}

func (i intake) item(ctx context.Context, q api.QuarantineItem) error {
	if !i.usable(ctx, "quarantine item", q.ID) {
		return nil
	}
	q.Node = i.node
	stored, err := i.tx.PutItem(ctx, i.batch, q)
	if err != nil || !stored {
		return err
	}
	return i.tx.Emit(ctx, api.EventQuarantine, q.Workload.Tenant, q)
}

// result settles a command and what hangs on it.
func (i intake) result(ctx context.Context, r api.CommandResult) error {
	c, err := i.tx.Answer(ctx, i.node, r)
	if errors.Is(err, store.ErrNotFound) {
		return nil // answered twice, or withdrawn meanwhile
	}
	if err != nil {
		return err
	}
	if c.Verb == api.VerbConfig {
		return nil
	}
	decision := "allowed"
	if !r.OK {
		decision = "failed"
	}
	err = i.tx.Audit(ctx, api.AuditEntry{
		Actor: "node:" + i.node, Action: "command." + c.Verb, Target: "command/" + c.ID, Decision: decision, Reason: r.Error,
		Detail: detail(map[string]any{"by": c.By, "detail": r.Detail}),
	})
	if err != nil {
		return err
	}
	finding, err := i.tx.SettleDecision(ctx, c.ID, r.OK, r.Error)
	if err != nil {
		return err
	}
	if finding != "" {
		f, err := i.tx.Finding(ctx, finding)
		if err != nil {
			return err
		}
		if err := i.tx.Emit(ctx, api.EventFinding, f.Workload.Tenant, f.Finding); err != nil {
			return err
		}
	}
	if c.Verb == api.VerbScan && !r.OK {
		if err := i.failScan(ctx, c.Command, r); err != nil {
			return err
		}
	}
	return i.tx.Emit(ctx, api.EventCommand, "", c)
}

// failScan ends a scan its node could not start.
func (i intake) failScan(ctx context.Context, c api.Command, r api.CommandResult) error {
	s, err := i.tx.ScanOfCommand(ctx, c.ID)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil || (s.State != api.ScanQueued && s.State != api.ScanRunning) {
		return err
	}
	done := r.Done
	s.State, s.Error, s.Finished = api.ScanFailed, r.Error, &done
	if _, err := i.tx.PutScan(ctx, i.batch, s); err != nil {
		return err
	}
	return i.tx.Emit(ctx, api.EventScan, "", s)
}

type configIn struct {
	NodeIn
	IfNoneMatch string `header:"If-None-Match"`
}

type configOut struct {
	Status int
	ETag   string `header:"ETag"`
	Body   api.NodeConfig
}

// nodeConfig is what a node works by; its tag is a digest of the content.
func (m *Manager) nodeConfig(ctx context.Context, in *configIn) (*configOut, error) {
	list, err := policies(ctx, m.store.Reader)
	if err != nil {
		return nil, err
	}
	c := api.NodeConfig{Policies: []json.RawMessage{}}
	for _, p := range list {
		c.Policies = append(c.Policies, p.Resource)
	}
	if c.Allowed, err = m.store.Allowed(ctx, time.Now()); err != nil {
		return nil, err
	}
	if c.Epoch, err = m.epoch(); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(detail(c))
	out := &configOut{Status: http.StatusOK, ETag: fmt.Sprintf(`"%x"`, sum[:12]), Body: c}
	if in.IfNoneMatch == out.ETag {
		out.Status = http.StatusNotModified
	}
	return out, nil
}
