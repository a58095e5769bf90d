package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// FindingRecord is a finding as people see it: what the node reported, merged
// with what people decided here.
type FindingRecord struct {
	threat.Finding
	Rev int64 // grows with every change
}

// FindingFilter selects findings; zero fields select all.
type FindingFilter struct {
	States   []string
	Severity threat.Severity // at least
	Workload string          // id or name
	Node     string
	Object   string   // SHA-256
	Text     string   // in path, image, names, signatures
	Tenants  []string // nil: all; an owner sees only theirs
}

// PutFinding stores what a node reported. The version of the newest batch
// wins: an older one, or one of a finding that belongs to another node, changes
// nothing and gives false.
func (t *Tx) PutFinding(ctx context.Context, batch string, f threat.Finding) (bool, error) {
	b, err := encode("finding", f)
	if err != nil {
		return false, err
	}
	seen := f.LastSeen
	if seen.IsZero() {
		seen = f.Time
	}
	n, err := t.exec(ctx, "storing finding", `
		INSERT INTO finding (id, node, batch, last_seen, tenant, workload, severity, object, state, search, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (id) DO UPDATE SET
			batch = excluded.batch, rev = rev + 1, last_seen = excluded.last_seen, tenant = excluded.tenant,
			workload = excluded.workload, severity = excluded.severity, object = excluded.object,
			search = excluded.search, body = excluded.body,
			-- what a person closed opens again when it is seen again; a false positive does not
			triage = CASE WHEN triage = 'resolved' AND excluded.last_seen > triaged THEN '' ELSE triage END,
			state = CASE WHEN triage = '' OR (triage = 'resolved' AND excluded.last_seen > triaged)
				THEN excluded.state ELSE triage END
		WHERE node = excluded.node AND batch < excluded.batch`,
		f.ID, f.Node, batch, seen.UnixNano(), f.Workload.Tenant, f.Workload.ID, f.Severity.Rank(),
		f.Object.String(), string(f.State), searchText(f), b)
	return n > 0, err
}

// searchText is what the text filter looks at, in lower case.
func searchText(f threat.Finding) string {
	parts := []string{
		f.ID, f.Node, f.Location.Path, f.Location.HostPath, f.Location.Image, f.Member,
		f.Workload.ID, f.Workload.Name, f.Workload.Pod, f.Workload.Image, f.Policy, f.Object.String(),
	}
	for _, d := range f.Detections {
		parts = append(parts, d.Signature, d.Technique)
	}
	if f.Process != nil {
		parts = append(parts, f.Process.Exe)
	}
	return strings.ToLower(strings.Join(parts, "\n"))
}

const findingColumns = "SELECT rev, state, body FROM finding"

func scanFinding(r *sql.Rows) (FindingRecord, error) {
	var (
		f     FindingRecord
		state string
		b     []byte
	)
	if err := r.Scan(&f.Rev, &state, &b); err != nil {
		return f, err
	}
	if err := json.Unmarshal(b, &f.Finding); err != nil {
		return f, err
	}
	f.State = threat.State(state)
	return f, nil
}

// Finding returns one finding.
func (r Reader) Finding(ctx context.Context, id string) (FindingRecord, error) {
	list, err := rows(ctx, r.q, "reading finding", scanFinding, findingColumns+" WHERE id = ?", id)
	if err != nil {
		return FindingRecord{}, err
	}
	if len(list) == 0 {
		return FindingRecord{}, fmt.Errorf("finding %s: %w", id, ErrNotFound)
	}
	return list[0], r.decisions(ctx, list)
}

// Findings returns one page, newest first, and the cursor of the next.
func (r Reader) Findings(ctx context.Context, f FindingFilter, p Page) ([]FindingRecord, string, error) {
	var where []string
	var args []any
	add := func(sql string, a ...any) { where, args = append(where, sql), append(args, a...) }
	if len(f.States) > 0 {
		add("state IN (SELECT value FROM json_each(?))", jsonList(f.States))
	}
	if f.Severity != "" {
		add("severity >= ?", f.Severity.Rank())
	}
	if f.Workload != "" {
		add("(workload = ? OR body ->> '$.workload.name' = ?)", f.Workload, f.Workload)
	}
	if f.Node != "" {
		add("node = ?", f.Node)
	}
	if f.Object != "" {
		add("object = ?", strings.ToLower(f.Object))
	}
	if f.Text != "" {
		add("instr(search, ?) > 0", strings.ToLower(f.Text))
	}
	if f.Tenants != nil {
		add("tenant IN (SELECT value FROM json_each(?))", jsonList(f.Tenants))
	}
	if p.After != "" {
		add("id < ?", p.After)
	}
	query := findingColumns
	if len(where) > 0 {
		query += " WHERE " + strings.Join(where, " AND ")
	}
	list, err := rows(ctx, r.q, "listing findings", scanFinding, query+" ORDER BY id DESC LIMIT ?", append(args, p.limit()+1)...)
	if err != nil {
		return nil, "", err
	}
	list, cursor := next(list, p.limit(), func(f FindingRecord) string { return f.ID })
	return list, cursor, r.decisions(ctx, list)
}

func jsonList(list []string) string {
	b, _ := json.Marshal(list) // strings always marshal
	return string(b)
}

// CountFindings counts findings by state.
func (r Reader) CountFindings(ctx context.Context) (map[string]int64, error) {
	out := map[string]int64{}
	_, err := rows(ctx, r.q, "counting findings", func(r *sql.Rows) (struct{}, error) {
		var state string
		var n int64
		err := r.Scan(&state, &n)
		out[state] = n
		return struct{}{}, err
	}, "SELECT state, count(*) FROM finding GROUP BY state")
	return out, err
}

// Triage records that a person closed a finding (resolved, dismissed), or that
// it is contained; the node's later versions keep that state.
func (t *Tx) Triage(ctx context.Context, id string, state threat.State) error {
	return t.change(ctx, "finding "+id,
		"UPDATE finding SET triage = ?1, state = ?1, triaged = ?2, rev = rev + 1 WHERE id = ?3",
		string(state), t.Now.UnixNano(), id)
}

// AddDecision adds a person's decision to a finding. Command is the id of the
// command that carries it out, empty if nothing has to be.
func (t *Tx) AddDecision(ctx context.Context, finding string, d threat.Decision, command string) error {
	b, err := encode("decision", d)
	if err != nil {
		return err
	}
	if err := t.change(ctx, "finding "+finding, "UPDATE finding SET rev = rev + 1 WHERE id = ?", finding); err != nil {
		return err
	}
	_, err = t.exec(ctx, "storing decision", `INSERT INTO decision (finding, seq, command, body)
		VALUES (?1, (SELECT count(*) FROM decision WHERE finding = ?1), ?2, ?3)`, finding, command, b)
	return err
}

// SettleDecision writes a command's outcome into the decision it carries out
// and returns the finding's id, empty if the command belongs to none.
func (t *Tx) SettleDecision(ctx context.Context, command string, ok bool, detail string) (finding string, err error) {
	type row struct {
		finding string
		seq     int64
		body    []byte
	}
	list, err := rows(ctx, t.q, "reading decision", func(r *sql.Rows) (x row, err error) {
		return x, r.Scan(&x.finding, &x.seq, &x.body)
	}, "SELECT finding, seq, body FROM decision WHERE command = ?", command)
	if err != nil || len(list) == 0 {
		return "", err
	}
	var d threat.Decision
	if err := json.Unmarshal(list[0].body, &d); err != nil {
		return "", fmt.Errorf("reading decision: %w", err)
	}
	d.Result, d.Detail = threat.ResultDone, detail
	if !ok {
		d.Result = threat.ResultFailed
	}
	b, err := encode("decision", d)
	if err != nil {
		return "", err
	}
	if _, err := t.exec(ctx, "settling decision", "UPDATE decision SET body = ? WHERE finding = ? AND seq = ?",
		b, list[0].finding, list[0].seq); err != nil {
		return "", err
	}
	if _, err := t.exec(ctx, "settling decision", "UPDATE finding SET rev = rev + 1 WHERE id = ?", list[0].finding); err != nil {
		return "", err
	}
	contains := d.Action == threat.Quarantine || d.Action == threat.Delete || d.Action == threat.Kill
	if ok && contains {
		_, err = t.exec(ctx, "settling decision", `UPDATE finding SET state = 'contained', triage = 'contained', triaged = ?
			WHERE id = ? AND state IN ('open', 'waiting')`, t.Now.UnixNano(), list[0].finding)
	}
	return list[0].finding, err
}

// decisions adds people's decisions to findings. When the node reports the same
// decision (it carried the command out), the node's account replaces ours.
func (r Reader) decisions(ctx context.Context, list []FindingRecord) error {
	ids := make([]string, len(list))
	byID := make(map[string]*threat.Finding, len(list))
	for i := range list {
		ids[i], byID[list[i].ID] = list[i].ID, &list[i].Finding
	}
	_, err := rows(ctx, r.q, "reading decisions", func(r *sql.Rows) (struct{}, error) {
		var id string
		var b []byte
		var d threat.Decision
		if err := r.Scan(&id, &b); err != nil {
			return struct{}{}, err
		}
		if err := json.Unmarshal(b, &d); err != nil {
			return struct{}{}, err
		}
		merge(byID[id], d)
		return struct{}{}, nil
	}, "SELECT finding, body FROM decision WHERE finding IN (SELECT value FROM json_each(?)) ORDER BY finding, seq", jsonList(ids))
	for i := range list {
		slices.SortStableFunc(list[i].Decisions, func(a, b threat.Decision) int { return a.At.Compare(b.At) })
	}
	return err
}

func merge(f *threat.Finding, d threat.Decision) {
	for _, have := range f.Decisions {
		if have.By == d.By && have.Action == d.Action && !have.At.Before(d.At.Add(-time.Second)) {
			return
		}
	}
	f.Decisions = append(f.Decisions, d)
}
