package manager

import (
	"context"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/danielgtaylor/huma/v2"
	"github.com/danielgtaylor/huma/v2/adapters/humago"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/manager/page"
	"github.com/lazaret/lazaret/internal/threat"
)

// silence is how long a node may say nothing before that is a condition: six
// reports.
const silence = 30 * time.Second

// raw is the output of a handler that writes its answer itself.
func raw(f func(w http.ResponseWriter, r *http.Request)) *huma.StreamResponse {
	return &huma.StreamResponse{Body: func(c huma.Context) {
		r, w := humago.Unwrap(c)
		f(w, r)
	}}
}

func (m *Manager) health(context.Context, *empty) (*huma.StreamResponse, error) {
	return raw(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Write([]byte("ok\n")) //nolint:errcheck // the caller is gone
	}), nil
}

type readyOut struct {
	Status int
	Body   api.Ready
}

// ready says 503 when the database does not answer or a condition is critical.
func (m *Manager) ready(ctx context.Context, _ *empty) (*readyOut, error) {
	out := &readyOut{Status: http.StatusOK, Body: api.Ready{Ready: true, Conditions: []string{}}}
	conditions, err := m.conditions(ctx)
	if err != nil {
		conditions = append(m.Conditions.List(), threat.Condition{Code: "database_unavailable", Severity: threat.Critical})
	}
	for _, c := range conditions {
		out.Body.Conditions = append(out.Body.Conditions, string(c.Severity)+" "+c.Code)
		if c.Severity == threat.Critical {
			out.Status, out.Body.Ready = http.StatusServiceUnavailable, false
		}
	}
	return out, nil
}

func (m *Manager) version(context.Context, *empty) (*answer[api.Version], error) {
	return &answer[api.Version]{api.Version{Version: m.Version, Go: runtime.Version()}}, nil
}

func (m *Manager) scrape(context.Context, *empty) (*huma.StreamResponse, error) {
	h := promhttp.HandlerFor(m.metrics.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	return raw(h.ServeHTTP), nil
}

func (m *Manager) setupPage(context.Context, *empty) (*huma.StreamResponse, error) {
	return raw(page.Setup().ServeHTTP), nil
}

func (m *Manager) openAPI(context.Context, *empty) (*huma.StreamResponse, error) {
	b, err := m.web.document()
	if err != nil {
		return nil, err
	}
	return raw(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		w.Write(b) //nolint:errcheck // the caller is gone
	}), nil
}

func (m *Manager) status(ctx context.Context, _ *empty) (*answer[api.Status], error) {
	s := api.Status{Version: m.Version, Health: threat.Informational}
	var err error
	if s.Nodes, err = m.store.Nodes(ctx); err != nil {
		return nil, err
	}
	s.Conditions = m.merge(s.Nodes)
	for _, c := range s.Conditions {
		if c.Severity.Rank() > s.Health.Rank() {
			s.Health = c.Severity
		}
	}
	if s.Findings, err = m.store.CountFindings(ctx); err != nil {
		return nil, err
	}
	if s.Quarantine, err = m.store.CountHeld(ctx); err != nil {
		return nil, err
	}
	if s.Epoch, err = m.epoch(); err != nil {
		return nil, err
	}
	return &answer[api.Status]{s}, nil
}

// conditions are those of the manager and of all nodes.
func (m *Manager) conditions(ctx context.Context) ([]threat.Condition, error) {
	nodes, err := m.store.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	return m.merge(nodes), nil
}

// merge joins the manager's conditions with those of its nodes: one a code,
// the more severe of two; most severe first.
func (m *Manager) merge(nodes []api.Node) []threat.Condition {
	all := m.Conditions.List()
	for _, n := range nodes {
		all = append(all, n.Report.Conditions...)
		if !n.LastSeen.IsZero() && time.Since(n.LastSeen) > silence {
			all = append(all, threat.Condition{
				Code: "node_silent", Severity: threat.High, Since: n.LastSeen,
				Text:   "Node " + n.Name + " has not reported since " + n.LastSeen.Format(time.RFC3339) + ".",
				Advice: "Check that the node service runs there and reaches this manager. What it protects goes on being protected while it runs.",
			})
		}
	}
	slices.SortStableFunc(all, func(a, b threat.Condition) int {
		if d := b.Severity.Rank() - a.Severity.Rank(); d != 0 {
			return d
		}
		return strings.Compare(a.Code, b.Code)
	})
	out := []threat.Condition{}
	seen := map[string]bool{}
	for _, c := range all {
		if key := c.Code + "\n" + c.Text; !seen[key] {
			seen[key] = true
			out = append(out, c)
		}
	}
	return out
}

// epoch is that of the active bundle, 0 if there is none.
func (m *Manager) epoch() (threat.Epoch, error) {
	bundles, err := m.Repository.List()
	if err != nil {
		return 0, err
	}
	for _, b := range bundles {
		if b.Active {
			return b.Epoch, nil
		}
	}
	return 0, nil
}
