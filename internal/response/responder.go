package response

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/policy"
	"github.com/lazaret/lazaret/internal/threat"
)

// Containers finds a running process of a workload, whose mount namespace
// shows the workload's files.
type Containers interface {
	Process(ctx context.Context, workload string) (pid int, start uint64, ok bool)
}

// Config of a Responder.
type Config struct {
	Vault    *Vault
	Killer   *Killer
	Governor *Governor
	// Containers may be nil on hosts without any.
	Containers Containers
	// Rescan inspects a file before it is restored.
	Rescan func(ctx context.Context, f *os.File) (threat.Verdict, error)
	Logger *slog.Logger
}

// Responder carries out what policies and people decide about findings.
type Responder struct{ Config }

// New returns a responder. All fields but Containers and Logger are required.
func New(c Config) (*Responder, error) {
	if c.Vault == nil || c.Killer == nil || c.Governor == nil || c.Rescan == nil {
		return nil, errors.New("making responder: vault, killer, governor and rescan are required")
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Responder{c}, nil
}

// order is that of carrying actions out: what stops the damage first.
var order = []threat.Action{threat.Allow, threat.Deny, threat.Kill, threat.Quarantine, threat.Delete}

// Apply carries a policy's decision out and returns the finding with one
// decision per action, its state and its vault item. Denying is the business
// of whoever answers the access; here it is only recorded.
func (r *Responder) Apply(ctx context.Context, f threat.Finding, d policy.Decision, t Target) threat.Finding {
	for _, action := range order {
		if !slices.Contains(d.Actions, action) || d.Mode == policy.Off {
			continue
		}
		rec := threat.Decision{Action: action, By: "policy:" + d.Policy, Reason: d.Why, At: time.Now().UTC()}
		switch {
		case d.Mode == policy.Monitor:
			rec.Result = threat.ResultWould
		case action == threat.Allow || action == threat.Deny:
			rec.Result = threat.ResultDone
		default:
			if ok, why := r.Governor.Admit(d.Policy, d.Governor, f.Object); !ok {
				rec.Result, rec.Detail = threat.ResultPending, why
				break
			}
			r.carryOut(ctx, &f, &rec, t)
		}
		settle(&f, rec)
	}
	return f
}

// Decide carries out what a person decided about a finding; by is "user:NAME"
// or "owner:WORKLOAD". The governor has no say.
func (r *Responder) Decide(ctx context.Context, f threat.Finding, action threat.Action, by, reason string, t Target) threat.Finding {
	rec := threat.Decision{Action: action, By: by, Reason: reason, At: time.Now().UTC()}
	switch action {
	case threat.Allow, threat.Deny:
		rec.Result = threat.ResultDone
	default:
		r.carryOut(ctx, &f, &rec, t)
	}
	settle(&f, rec)
	if action == threat.Allow {
		f.State = threat.Dismissed
	}
	return f
}

// settle adds a decision to the finding and brings its state up to date.
func settle(f *threat.Finding, d threat.Decision) {
	f.Decisions = append(slices.Clip(f.Decisions), d)
	switch {
	case d.Result == threat.ResultPending:
		f.State = threat.Waiting
	case d.Result == threat.ResultDone && (d.Action == threat.Quarantine || d.Action == threat.Delete || d.Action == threat.Kill):
		f.State = threat.Contained
	case f.State == "":
		f.State = threat.Open
	}
}

// carryOut does one action and records its result.
func (r *Responder) carryOut(ctx context.Context, f *threat.Finding, d *threat.Decision, t Target) {
	var detail string
	var err error
	switch d.Action {
	case threat.Quarantine, threat.Delete:
		if f.Object.IsZero() { // nothing would say whether it is the right file
			err = ErrNotInspected
			break
		}
		if d.Action == threat.Delete {
			detail, err = r.remove(ctx, f, t)
			break
		}
		detail, err = r.quarantine(ctx, f, t)
	case threat.Kill:
		err = errors.New("the process is not known")
		if f.Process != nil {
			err = r.Killer.Kill(ctx, *f.Process)
			detail = fmt.Sprintf("process %d was killed", f.Process.PID)
		}
		if errors.Is(err, ErrGone) {
			detail, err = "the process had ended", nil
		}
	default:
		err = fmt.Errorf("action %q cannot be carried out", d.Action)
	}
	d.Result, d.Detail = threat.ResultDone, detail
	if err != nil {
		d.Result, d.Detail = threat.ResultFailed, err.Error()
		r.Logger.WarnContext(ctx, "response was not carried out", slog.String("finding", f.ID),
			slog.String("action", string(d.Action)), slog.Any("error", err))
	}
}

func (r *Responder) quarantine(ctx context.Context, f *threat.Finding, t Target) (string, error) {
	o, err := OpenOriginal(r.reach(ctx, f.Workload, t))
	if errors.Is(err, ErrGone) {
		// Several accesses may have reported the file; the first one took it.
		if item, err := r.Vault.ByFinding(ctx, f.ID); err == nil && f.ID != "" {
			f.VaultID = item.ID
			return "the file is in quarantine already", nil
		}
	}
	if err != nil {
		return "", err
	}
	defer o.Close()
	item, err := r.Vault.Quarantine(ctx, o, Meta{Finding: f.ID, Object: f.Object, Workload: f.Workload, Location: f.Location})
	if item.ID != "" {
		f.VaultID = item.ID
	}
	return links("moved to quarantine", item.Links), err
}

func (r *Responder) remove(ctx context.Context, f *threat.Finding, t Target) (string, error) {
	o, err := OpenOriginal(r.reach(ctx, f.Workload, t))
	if err != nil {
		return "", err
	}
	defer o.Close()
	n, err := r.Vault.Delete(ctx, o, Meta{Finding: f.ID, Object: f.Object, Workload: f.Workload, Location: f.Location})
	return links("deleted", n), err
}

func links(what string, n uint64) string {
	if n == 0 {
		return what
	}
	return fmt.Sprintf("%s; %d other names of the file remain and stay denied", what, n)
}

// reach makes a target go through a process that runs: the one that made the
// access often has ended by now. A container's path is never looked up on the
// host: the host may have a file of that name too.
func (r *Responder) reach(ctx context.Context, w threat.Workload, t Target) Target {
	if w.Kind != threat.KindContainer {
		return t
	}
	if r.Containers != nil {
		if pid, start, ok := r.Containers.Process(ctx, w.ID); ok {
			t.PID, t.Start = pid, start
			return t
		}
	}
	if t.PID == 0 || (t.Start != 0 && !running(t.PID, t.Start)) {
		return Target{Path: t.HostPath, ImageLayer: t.ImageLayer}
	}
	return t
}

// Restore puts an item back to where it was, or to another path on the host.
// allowed says that a person allow-listed the object.
func (r *Responder) Restore(ctx context.Context, a api.RestoreArgs, allowed bool) (api.RestoreResult, error) {
	item, err := r.Vault.Get(ctx, a.Item)
	if err != nil {
		return api.RestoreResult{}, fmt.Errorf("restoring quarantine item %s: %w", a.Item, err)
	}
	t := Target{Path: a.Path}
	if a.Path == "" {
		if t, err = r.home(ctx, &item); err != nil {
			return api.RestoreResult{}, fmt.Errorf("restoring quarantine item %s: %w", a.Item, err)
		}
	}
	done, err := r.Vault.Restore(ctx, a.Item, RestoreOptions{Target: t, Rescan: r.Rescan, Allowed: allowed})
	if err != nil {
		return api.RestoreResult{Verdict: done.Verdict}, err
	}
	if len(done.Refused) > 0 {
		r.Logger.WarnContext(ctx, "extended attributes were not restored", slog.String("item", a.Item), slog.Any("names", done.Refused))
	}
	return api.RestoreResult{Path: threat.Printable(done.Path), Verdict: done.Verdict}, nil
}

// home returns where an item came from: inside its container if that runs,
// else the backing file on the host.
func (r *Responder) home(ctx context.Context, item *Item) (Target, error) {
	t := Target{Path: string(item.Path), HostPath: string(item.HostPath)}
	if item.Workload.Kind != threat.KindContainer {
		return t, nil
	}
	if r.Containers != nil {
		if pid, start, ok := r.Containers.Process(ctx, item.Workload.ID); ok {
			t.PID, t.Start = pid, start
			return t, nil
		}
	}
	if t.HostPath == "" {
		return t, fmt.Errorf("%w: container %s does not run; give another path on the host", ErrGone, item.Workload.Name)
	}
	return Target{Path: t.HostPath}, nil
}
