// Package casework turns accesses and scan results into findings: recorded
// durably first, then acted upon, then reported. It also carries out what
// people decide about them.
package casework

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/node/guard"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/response"
	"github.com/lazaret/lazaret/internal/threat"
	"github.com/lazaret/lazaret/internal/workload"
)

// Records is the durable store of findings; the node's spool.
type Records interface {
	Record(ctx context.Context, f *threat.Finding) (known bool, err error)
	Update(ctx context.Context, f *threat.Finding) error
	Finding(ctx context.Context, id string) (threat.Finding, bool, error)
	AddItem(ctx context.Context, i api.QuarantineItem) error
}

// Responder carries decisions out.
type Responder interface {
	Apply(ctx context.Context, f threat.Finding, d policy.Decision, t response.Target) threat.Finding
	Decide(ctx context.Context, f threat.Finding, action threat.Action, by, reason string, t response.Target) threat.Finding
}

// Items reads the vault.
type Items interface {
	Get(ctx context.Context, id string) (response.Item, error)
}

// Config of a Desk. All fields are required.
type Config struct {
	Records    Records
	Responder  Responder
	Items      Items
	Conditions *condition.Set
	Logger     *slog.Logger
}

// Desk implements guard.Cases.
type Desk struct {
	Config
	queue    chan guard.Case
	patience time.Duration

	mu    sync.Mutex
	stuck map[string]bool // workloads whose response does not end
}

// queued bounds cases whose response has not started. A case that finds the
// queue full waits for a person: its finding says so.
const queued = 1024

// New returns a desk; Run makes it act.
func New(c Config) *Desk {
	return &Desk{Config: c, queue: make(chan guard.Case, queued), patience: 2 * actTime, stuck: map[string]bool{}}
}

// Open records the finding and queues its response. When it returns without an
// error, the finding survives a crash.
func (d *Desk) Open(ctx context.Context, c guard.Case) error {
	// A caller in a hurry must not leave the access without a record.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if _, err := d.Records.Record(ctx, &c.Finding); err != nil {
		return err
	}
	select {
	case d.queue <- c:
		return nil
	default:
	}
	wait(&c.Finding, "too many findings at once")
	return d.Records.Update(ctx, &c.Finding)
}

// wait makes a finding wait for a person.
func wait(f *threat.Finding, why string) {
	f.State = threat.Waiting
	f.Decisions = append(f.Decisions, threat.Decision{
		Action: threat.Quarantine, By: "policy:" + f.Policy, At: time.Now().UTC(), Result: threat.ResultPending,
		Reason: why, Detail: "access stays denied; decide by hand",
	})
	bound(f)
}

// Interrupted makes findings wait for a person that were recorded before a
// crash and not acted upon: who made the access, and what the policy wanted,
// ended with the service.
func Interrupted(f *threat.Finding) {
	wait(f, "the service stopped before it could act")
}

// Run carries responses out, one after the other, until ctx ends.
func (d *Desk) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case c := <-d.queue:
			d.attempt(ctx, c)
		}
	}
}

// actTime bounds one response that can be cancelled.
const actTime = time.Minute

// attempt acts, and goes on without the result if that does not end: in a
// container's mounts a mere look-up can hang for ever (FUSE), and others must
// not wait for it. Nothing more is done in that workload meanwhile.
func (d *Desk) attempt(ctx context.Context, c guard.Case) {
	id := c.Finding.Workload.ID
	if d.isStuck(id, false) {
		d.postpone(ctx, c.Finding.ID, "an earlier response in this workload does not end")
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.act(ctx, c)
	}()
	late := time.NewTimer(d.patience)
	defer late.Stop()
	select {
	case <-done:
		return
	case <-late.C:
	}
	d.isStuck(id, true)
	d.Conditions.Raise(threat.Condition{
		Code: "response_hangs", Severity: threat.High,
		Text:   "A response in workload " + id + " does not end: a file system there does not answer. Its findings wait for a person.",
		Advice: "Access to the files stays denied. Stop the workload, then decide on its findings.",
	})
	d.postpone(ctx, c.Finding.ID, "the response does not end")
	go func() {
		<-done
		d.mu.Lock()
		defer d.mu.Unlock()
		if delete(d.stuck, id); len(d.stuck) == 0 {
			d.Conditions.Clear("response_hangs")
		}
	}()
}

// isStuck reports, or notes, that a workload's response does not end.
func (d *Desk) isStuck(id string, note bool) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if note {
		d.stuck[id] = true
	}
	return d.stuck[id]
}

// postpone makes a recorded finding wait for a person.
func (d *Desk) postpone(ctx context.Context, id, why string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	f, ok, err := d.Records.Finding(ctx, id)
	if err == nil && ok {
		wait(&f, why)
		err = d.Records.Update(ctx, &f)
	}
	if err != nil {
		d.Logger.ErrorContext(ctx, "finding was not updated", slog.String("finding", id), slog.Any("error", err))
	}
}

// maxDecisions bounds the history of a finding that comes back for ever; the
// first ones and the last ones are kept.
const maxDecisions = 60

func (d *Desk) act(ctx context.Context, c guard.Case) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTime)
	defer cancel()
	f := d.Responder.Apply(ctx, d.newest(ctx, &c.Finding), c.Decision, target(c))
	if err := d.store(ctx, &f); err != nil {
		d.Logger.ErrorContext(ctx, "response was carried out but not recorded", slog.String("finding", f.ID), slog.Any("error", err))
		d.Conditions.Raise(threat.Condition{
			Code: "response_not_recorded", Severity: threat.High,
			Text:   "What was done about a finding could not be stored: " + err.Error(),
			Advice: "Free space in the state directory.",
		})
	}
}

// newest is the finding as it is recorded by now, with what earlier responses
// and later occurrences added, but with this occurrence's process: that is the
// one to act on.
func (d *Desk) newest(ctx context.Context, f *threat.Finding) threat.Finding {
	now, ok, err := d.Records.Finding(ctx, f.ID)
	if err != nil || !ok {
		return *f
	}
	now.Process = f.Process
	return now
}

func target(c guard.Case) response.Target {
	t := response.Target{Path: c.Place.Path, HostPath: c.Place.HostPath, ImageLayer: inImage(c.Place.Layer)}
	if c.Finding.Workload.Kind == threat.KindContainer {
		t.PID = c.PID
		if p := c.Finding.Process; p != nil && p.PID == c.PID {
			t.Start = p.Start
		}
	}
	return t
}

// inImage reports whether a layer is one of an image, which other containers
// use as well.
func inImage(layer string) bool { return layer != "" && layer != workload.LayerUpper }

func bound(f *threat.Finding) {
	if n := len(f.Decisions); n > maxDecisions {
		f.Decisions = append(f.Decisions[:10:10], f.Decisions[n-maxDecisions+10:]...)
	}
}

// store writes the finding and the quarantine item it led to.
func (d *Desk) store(ctx context.Context, f *threat.Finding) error {
	bound(f)
	if err := d.Records.Update(ctx, f); err != nil {
		return err
	}
	if f.VaultID == "" {
		return nil
	}
	return d.Item(ctx, f.VaultID)
}

// Item reports a quarantine item's present state.
func (d *Desk) Item(ctx context.Context, id string) error {
	item, err := d.Items.Get(ctx, id)
	if errors.Is(err, response.ErrNoItem) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reporting quarantine item %s: %w", id, err)
	}
	return d.Records.AddItem(ctx, item.QuarantineItem)
}

// Decide carries a person's decision out and stores the finding.
func (d *Desk) Decide(ctx context.Context, f threat.Finding, action threat.Action, by, reason string) (threat.Finding, error) {
	t := response.Target{Path: f.Location.Path, HostPath: f.Location.HostPath, ImageLayer: inImage(f.Location.Layer)}
	if f.Process != nil && f.Workload.Kind == threat.KindContainer {
		t.PID, t.Start = f.Process.PID, f.Process.Start
	}
	f = d.Responder.Decide(ctx, f, action, by, reason, t)
	if err := d.store(ctx, &f); err != nil {
		return f, err
	}
	if last := f.Decisions[len(f.Decisions)-1]; last.Result == threat.ResultFailed {
		return f, errors.New(last.Detail)
	}
	return f, nil
}

// Recovered updates the findings whose quarantine a crash had interrupted.
func (d *Desk) Recovered(ctx context.Context, all []response.Recovered) error {
	for i := range all {
		item := &all[i].Item
		if f, ok, err := d.Records.Finding(ctx, item.Finding); err != nil {
			return err
		} else if ok && all[i].What == "quarantine" {
			rec := threat.Decision{Action: threat.Quarantine, By: "policy:" + f.Policy, At: time.Now().UTC(), Reason: "finished after a restart", Result: threat.ResultDone}
			if all[i].Done {
				f.VaultID, f.State = item.ID, threat.Contained
			} else {
				rec.Result, rec.Reason = threat.ResultFailed, "the service stopped before the file was safe in the vault"
			}
			f.Decisions = append(f.Decisions, rec)
			if err := d.Records.Update(ctx, &f); err != nil {
				return err
			}
		}
		if err := d.Item(ctx, item.ID); err != nil {
			return err
		}
	}
	return nil
}
