// Package job keeps scans that outlive their caller and the process: queued,
// run, resumed behind the last file that was done, cancelled, and their results
// kept for reading in pages.
package job

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"sync"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/scan"
	"github.com/lazaret/lazaret/internal/scan/queue"
	"github.com/lazaret/lazaret/internal/task"
)

// ErrNotFound says that there is no such scan (any more).
var ErrNotFound = errors.New("there is no such scan")

// ConditionWrite says that the state of scans cannot be stored.
const ConditionWrite = "scan_jobs_write"

// Runner runs one scan; scan.Scanner does.
type Runner interface {
	Run(ctx context.Context, q api.ScanRequest, o scan.Options, sink func(api.ScanLine) error) (api.ScanSummary, error)
}

// Config of Jobs.
type Config struct {
	// Dir holds jobs.db.
	Dir    string
	Runner Runner
	// Node is noted in the scans.
	Node string
	// Changed is told of every new state and of progress; it must not wait long.
	Changed func(api.Scan)
	// Found is called for every file with a threat, see scan.Options.
	Found func(ctx context.Context, id string, h scan.Hit) error
	// Retain is how many finished scans are kept; default 100.
	Retain int
	// MaxResults is how many lines of one scan are kept; default 1 million.
	MaxResults int64
	// OnDemand is how many on-demand scans run at once, default 2; of scheduled
	// ones it is always one.
	OnDemand   int
	Conditions *condition.Set // required
	Logger     *slog.Logger   // required
}

// Jobs is safe for concurrent use.
type Jobs struct {
	cfg   Config
	store *store

	mu      sync.Mutex
	running map[string]*execution
	wake    map[string]chan struct{} // by lane
}

// Open opens jobs.db. The caller runs Run and calls Close.
func Open(ctx context.Context, cfg Config) (*Jobs, error) {
	if cfg.Retain <= 0 {
		cfg.Retain = 100
	}
	if cfg.MaxResults <= 0 {
		cfg.MaxResults = 1_000_000
	}
	if cfg.OnDemand <= 0 {
		cfg.OnDemand = 2
	}
	if cfg.Changed == nil {
		cfg.Changed = func(api.Scan) {}
	}
	s, err := openStore(ctx, cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("opening scan jobs: %w", err)
	}
	j := &Jobs{cfg: cfg, store: s, running: map[string]*execution{}, wake: map[string]chan struct{}{
		scan.OnDemand.String():  make(chan struct{}, cfg.OnDemand),
		scan.Scheduled.String(): make(chan struct{}, 1),
	}}
	return j, nil
}

// Close closes the database; Run must have returned.
func (j *Jobs) Close() error { return j.store.db.Close() }

// Run runs queued scans and those that were interrupted, until ctx ends. Scans
// under way then are resumed by the next Run.
func (j *Jobs) Run(ctx context.Context) error {
	var lanes []func(context.Context) error
	for range j.cfg.OnDemand {
		lanes = append(lanes, func(ctx context.Context) error { return j.lane(ctx, scan.OnDemand.String()) })
	}
	lanes = append(lanes, func(ctx context.Context) error { return j.lane(ctx, scan.Scheduled.String()) })
	return task.Run(ctx, lanes...)
}

// Start stores a scan and queues it. A request with the id of a known scan
// returns that one: retries are harmless.
func (j *Jobs) Start(ctx context.Context, q api.ScanRequest) (api.Scan, error) {
	p, err := queue.ParsePriority(q.Priority)
	if err != nil {
		return api.Scan{}, fmt.Errorf("starting scan: %w", err)
	}
	if len(q.Paths) == 0 && q.Container == "" && q.Image == "" {
		return api.Scan{}, errors.New("starting scan: it names no target; give paths, a container or an image")
	}
	if q.ID == "" {
		q.ID = ulid.Make().String()
	}
	r := &record{lane: p.String(), Scan: api.Scan{ID: q.ID, Node: j.cfg.Node, Request: q, State: api.ScanQueued, Started: time.Now().UTC()}}
	added, err := j.store.add(ctx, r)
	if err != nil {
		return api.Scan{}, err
	}
	if !added {
		return j.Get(ctx, q.ID)
	}
	select {
	case j.wake[r.lane] <- struct{}{}:
	default:
	}
	j.cfg.Changed(r.Scan)
	return r.Scan, nil
}

// Get returns a scan, with present progress if it is running.
func (j *Jobs) Get(ctx context.Context, id string) (api.Scan, error) {
	r, err := j.store.get(ctx, id)
	if err != nil {
		return api.Scan{}, err
	}
	return j.present(r), nil
}

func (j *Jobs) present(r *record) api.Scan {
	s := r.Scan
	s.Node = j.cfg.Node
	j.mu.Lock()
	defer j.mu.Unlock()
	if e, ok := j.running[r.ID]; ok {
		if p := e.progress.Load(); p != nil {
			s.Summary = *p
		}
	}
	return s
}

// List returns scans, newest first. Token is that of the page before, empty
// for the first; limit is at most 500.
func (j *Jobs) List(ctx context.Context, token string, limit int) (api.Page[api.Scan], error) {
	before := int64(math.MaxInt64)
	if token != "" {
		var err error
		if before, err = strconv.ParseInt(token, 10, 64); err != nil {
			return api.Page[api.Scan]{}, fmt.Errorf("listing scans: page token %q is not valid", token)
		}
	}
	limit = pageSize(limit)
	records, err := j.store.list(ctx, before, limit)
	if err != nil {
		return api.Page[api.Scan]{}, err
	}
	page := api.Page[api.Scan]{Items: make([]api.Scan, 0, len(records))}
	for _, r := range records {
		page.Items = append(page.Items, j.present(r))
	}
	if len(records) == limit {
		page.NextPageToken = strconv.FormatInt(records[limit-1].seq, 10)
	}
	return page, nil
}

// Results returns the kept lines of a scan in the order of the walk. A page of
// a running scan may end before its limit and still have a token: more is to
// come.
func (j *Jobs) Results(ctx context.Context, id, token string, limit int) (api.Page[api.ScanLine], error) {
	var page api.Page[api.ScanLine]
	r, err := j.store.get(ctx, id)
	if err != nil {
		return page, err
	}
	from := int64(0)
	if token != "" {
		if from, err = strconv.ParseInt(token, 10, 64); err != nil || from < 0 {
			return page, fmt.Errorf("listing results: page token %q is not valid", token)
		}
	}
	lines, err := j.store.results(ctx, r.seq, from, pageSize(limit))
	if err != nil {
		return page, err
	}
	page.Items = append(make([]api.ScanLine, 0, len(lines)), lines...)
	if next := from + int64(len(lines)); next < r.lines || r.Finished == nil {
		page.NextPageToken = strconv.FormatInt(next, 10)
	}
	return page, nil
}

// Cancel ends a scan; one that is finished stays as it is.
func (j *Jobs) Cancel(ctx context.Context, id string) error {
	r, err := j.cancel(ctx, id)
	if err == nil && r != nil {
		j.cfg.Changed(r.Scan)
	}
	return err
}

// cancel returns the record if the scan was still waiting.
func (j *Jobs) cancel(ctx context.Context, id string) (*record, error) {
	j.mu.Lock() // also over the database: no lane may take it meanwhile
	defer j.mu.Unlock()
	if e, ok := j.running[id]; ok {
		e.cancel(errCancelled)
		return nil, nil
	}
	r, err := j.store.get(ctx, id)
	if err != nil || r.Finished != nil {
		return nil, err
	}
	now := time.Now().UTC()
	r.State, r.Finished, r.Node = api.ScanCancelled, &now, j.cfg.Node
	return r, j.store.save(ctx, r, nil)
}

func pageSize(limit int) int {
	if limit <= 0 {
		return 100
	}
	return min(limit, 500)
}
