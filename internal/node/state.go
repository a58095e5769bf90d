package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

// configKey is where the last configuration of the manager is kept, so that a
// restart without the manager does not fall back to the defaults.
const configKey = "config"

// restoreConfig puts the stored configuration in force.
func (n *Node) restoreConfig(ctx context.Context) {
	b, ok, err := n.spool.Setting(ctx, configKey)
	if err == nil && ok {
		var c api.NodeConfig
		if err = json.Unmarshal(b, &c); err == nil {
			err = n.apply(c)
		}
	}
	if err != nil {
		n.cfg.Logger.WarnContext(ctx, "stored configuration is not usable; the default policy is in force", slog.Any("error", err))
	}
}

// configure puts a configuration of the manager in force and keeps it.
func (n *Node) configure(ctx context.Context, c api.NodeConfig) error {
	if err := n.apply(c); err != nil {
		return err
	}
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("storing configuration: %w", err)
	}
	n.signatures.Check()
	return n.spool.SetSetting(ctx, configKey, b)
}

// apply is all or nothing.
func (n *Node) apply(c api.NodeConfig) error {
	var policies []policy.Policy
	for _, raw := range c.Policies {
		ps, err := policy.Parse(bytes.NewReader(raw))
		if err != nil {
			return err
		}
		policies = append(policies, ps...)
	}
	allowed := make(map[threat.Hash]time.Time, len(c.Allowed))
	for _, a := range c.Allowed {
		allowed[a.Hash] = a.Expires
	}
	n.guard.SetPolicies(policy.NewSet(policies))
	n.guard.SetAllowed(allowed)
	return nil
}

// refresh fetches the configuration and waits until it is in force.
func (n *Node) refresh(ctx context.Context) error { return n.link.FetchNow(ctx) }

// report is the node's state for the manager.
func (n *Node) report() api.Report {
	r := api.Report{
		Version: n.cfg.Version, Epoch: n.signatures.epoch(), Workloads: n.who.Workloads(),
		Conditions: n.cfg.Conditions.List(), Protected: []string{}, Stats: n.stats(),
	}
	if n.protection.driver != nil {
		r.Protected = n.protection.driver.Protected()
	}
	return r
}

// stats are the counters of all parts, named as in the metrics.
func (n *Node) stats() map[string]int64 {
	m := n.scans.Stats()
	g := n.guard.Stats()
	m["access_denied_total"] = g.Denied.Load()
	m["access_unjudged_total"] = g.Timeouts.Load()
	m["threats_total"] = g.Threats.Load()
	m["access_unattributed_total"] = g.Unattributed.Load()
	w := n.pool.Stats()
	m["engine_files_total"] = int64(w.Inspected)
	m["engine_crashes_total"] = int64(w.Crashes)
	m["engine_timeouts_total"] = int64(w.Timeouts)
	m["engine_resident_bytes"] = w.RSS
	if n.protection.driver == nil {
		return m
	}
	d := n.protection.driver.Stats()
	for name, v := range map[string]uint64{
		"events_total": d.Events, "events_own_total": d.Own, "events_known_total": d.Known, "events_allowed_total": d.Allowed,
		"events_denied_total": d.Denied, "events_late_total": d.Timeouts, "events_lost_total": d.Overflows + d.WritesLost,
		"events_descriptor_errors_total": d.FDErrors, "writes_total": d.Writes, "marks_total": d.Marked,
		"marks_dirtied_total": d.Dirtied, "marks": d.Remembered, "events_inflight": d.Inflight,
	} {
		m["fanotify_"+name] = int64(v)
	}
	return m
}

// retain purges quarantine items whose time is over.
func (n *Node) retain(ctx context.Context) error {
	for {
		expired, err := n.vault.Expire(ctx, time.Now())
		if err != nil && ctx.Err() == nil {
			n.cfg.Logger.WarnContext(ctx, "expired quarantine items were not purged", slog.Any("error", err))
		}
		for i := range expired {
			if err := n.desk.Item(ctx, expired[i].ID); err != nil {
				n.cfg.Logger.WarnContext(ctx, "purged item was not reported", slog.Any("error", err))
			}
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(time.Hour):
		}
	}
}
