package manager

import (
	"context"
	"log/slog"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/lazaret/lazaret/internal/threat"
)

// metrics are the manager's own; nothing is in a global registry. They hold
// counts only, never names of files or people.
type metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec
	suppressed prometheus.Counter
	streams    prometheus.Gauge
	batches    *prometheus.CounterVec
}

func newMetrics(m *Manager) *metrics {
	x := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lazaret_manager_requests_total", Help: "Requests by action of the authorization table and status.",
		}, []string{"action", "status"}),
		suppressed: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "lazaret_manager_denied_suppressed_total", Help: "Denied requests that were not audited because their source repeats them.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "lazaret_manager_streams", Help: "Open event streams.",
		}),
		batches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "lazaret_manager_batches_total", Help: "Batches uploaded by nodes, by whether they were new.",
		}, []string{"result"}),
	}
	for _, r := range []string{"new", "repeated"} {
		x.batches.WithLabelValues(r)
	}
	x.registry.MustRegister(x.requests, x.suppressed, x.streams, x.batches, &state{m},
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return x
}

func (x *metrics) request(action string, status int) {
	if action == "" {
		action = "unknown"
	}
	x.requests.WithLabelValues(action, strconv.Itoa(status)).Inc()
}

// state reads gauges from the store when scraped.
type state struct{ m *Manager }

var (
	findingsDesc   = prometheus.NewDesc("lazaret_manager_findings", "Findings by state.", []string{"state"}, nil)
	quarantineDesc = prometheus.NewDesc("lazaret_manager_quarantine_items", "Items held in quarantine.", nil, nil)
	nodesDesc      = prometheus.NewDesc("lazaret_manager_nodes", "Known nodes by whether they report.", []string{"state"}, nil)
	auditDesc      = prometheus.NewDesc("lazaret_manager_audit_entries", "Entries in the audit log.", nil, nil)
	epochDesc      = prometheus.NewDesc("lazaret_manager_epoch", "Active signature bundle.", nil, nil)
	conditionDesc  = prometheus.NewDesc("lazaret_condition", "1 while the condition is true.", []string{"code", "severity"}, nil)
)

// Describe implements prometheus.Collector.
func (s *state) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{findingsDesc, quarantineDesc, nodesDesc, auditDesc, epochDesc, conditionDesc} {
		c <- d
	}
}

// Collect implements prometheus.Collector.
func (s *state) Collect(c chan<- prometheus.Metric) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	if err := s.collect(ctx, gauge); err != nil {
		s.m.Logger.WarnContext(ctx, "metrics are incomplete", slog.Any("error", err))
	}
}

func (s *state) collect(ctx context.Context, gauge func(*prometheus.Desc, float64, ...string)) error {
	counts, err := s.m.store.CountFindings(ctx)
	if err != nil {
		return err
	}
	for _, st := range []threat.State{threat.Open, threat.Waiting, threat.Contained, threat.Resolved, threat.Dismissed} {
		gauge(findingsDesc, float64(counts[string(st)]), string(st))
	}
	held, err := s.m.store.CountHeld(ctx)
	if err != nil {
		return err
	}
	gauge(quarantineDesc, float64(held))
	gauge(auditDesc, float64(s.m.audit.Size()))
	nodes, err := s.m.store.Nodes(ctx)
	if err != nil {
		return err
	}
	up := 0
	for _, n := range nodes {
		if time.Since(n.LastSeen) <= silence {
			up++
		}
	}
	gauge(nodesDesc, float64(up), "reporting")
	gauge(nodesDesc, float64(len(nodes)-up), "silent")
	seen := map[string]bool{}
	for _, x := range s.m.merge(nodes) {
		if !seen[x.Code] { // of two texts with one code the more severe comes first
			seen[x.Code] = true
			gauge(conditionDesc, 1, x.Code, string(x.Severity))
		}
	}
	epoch, err := s.m.epoch()
	if err != nil {
		return err
	}
	gauge(epochDesc, float64(epoch))
	return nil
}
