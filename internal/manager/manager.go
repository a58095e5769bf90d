// Package manager is the management service: the API for people, nodes and
// scripts, authorization, audit log, findings, policies and the way signatures
// and commands reach the nodes. Nodes are its clients; it never calls them.
package manager

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/condition"
	"github.com/lazaret/lazaret/internal/manager/audit"
	"github.com/lazaret/lazaret/internal/manager/authz"
	"github.com/lazaret/lazaret/internal/manager/limit"
	"github.com/lazaret/lazaret/internal/manager/password"
	"github.com/lazaret/lazaret/internal/manager/store"
	"github.com/lazaret/lazaret/internal/task"
	"github.com/lazaret/lazaret/internal/threat"
)

// Repository is the signature repository; signature.Repository is one.
type Repository interface {
	// List returns all bundles, newest first; the active one is marked.
	List() ([]api.Bundle, error)
	// Rollback publishes the content of an older bundle under a new epoch. An
	// epoch that is not there is an error wrapping signature.ErrNotFound.
	Rollback(ctx context.Context, epoch threat.Epoch, by, reason string) (api.Bundle, error)
	// Handler serves the repository's files from the root of its path.
	Handler() http.Handler
}

// Import is a request to publish new signatures.
type Import struct {
	By      string
	Comment string
	// DryRun compiles and tests but publishes nothing.
	DryRun bool
	// Dir holds the sources, regular files only; it is removed afterwards.
	Dir string
}

// Importer compiles, tests and publishes signatures. What is wrong with the
// sources is in the report; an error means the import itself did not work.
type Importer interface {
	Import(ctx context.Context, i Import) (api.ImportReport, error)
}

// Config of a Manager. Dir, Repository, Importer, Logger and Conditions are
// required.
type Config struct {
	// Dir holds manager.db and audit/.
	Dir string
	// Socket is the path of the unix socket; root there is the local
	// administrator. Empty: none.
	Socket string
	// Listen is a TCP address, empty for none. Other than loopback addresses need
	// TLSCert and TLSKey (PEM files).
	Listen          string
	TLSCert, TLSKey string
	Repository      Repository
	Importer        Importer
	Logger          *slog.Logger
	Conditions      *condition.Set
	Version         string
	// NodeWait is how long a person's request waits for a node, default 60 s.
	NodeWait time.Duration
}

// Manager is the service. Close it after Run returned.
type Manager struct {
	Config
	store    *store.Store
	audit    *audit.Log
	appender *audit.Appender
	table    *authz.Table
	hasher   *password.Hasher
	logins   *limit.Limiter // by name and by address
	denials  *limit.Limiter // audit entries of strangers, by address
	uploads  *uploads
	metrics  *metrics
	web      *web
	open     atomic.Int64  // streams
	stopping chan struct{} // closed when Run ends: streams stop
	stop     sync.Once
}

// New opens the manager's state. It fails with an error wrapping
// sqlite.ErrCorrupt or audit.ErrDamaged if the state must be restored first.
func New(c Config) (*Manager, error) {
	if c.NodeWait <= 0 {
		c.NodeWait = time.Minute
	}
	m := &Manager{
		Config: c, table: authz.NewTable(), hasher: password.New(),
		logins: limit.New(5, 12*time.Second), denials: limit.New(20, 5*time.Second),
		uploads: newUploads(), stopping: make(chan struct{}),
	}
	if err := m.load(context.Background()); err != nil {
		return nil, errors.Join(fmt.Errorf("opening manager state: %w", err), m.Close())
	}
	m.metrics = newMetrics(m)
	m.web = newWeb(m)
	return m, nil
}

func (m *Manager) load(ctx context.Context) (err error) {
	if m.store, err = store.Open(ctx, filepath.Join(m.Dir, "manager.db")); err != nil {
		return err
	}
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "localhost"
	}
	if m.audit, err = audit.Open(filepath.Join(m.Dir, "audit"), "lazaret-audit-"+host); err != nil {
		return err
	}
	m.appender = audit.NewAppender(m.audit, m.store.Outbox(), m.auditHealth)
	return m.reconcileAudit(ctx)
}

// reconcileAudit brings log and database together: a database restored from an
// older backup goes on behind the log's end; a log that lacks entries the
// database knows of was cut off and is refused.
func (m *Manager) reconcileAudit(ctx context.Context) error {
	next, err := m.store.NextAudit(ctx)
	if err != nil {
		return err
	}
	size := m.audit.Size()
	if next < size {
		m.Logger.WarnContext(ctx, "database is older than the audit log", slog.Int64("database", next), slog.Int64("log", size))
		if err := m.store.Update(ctx, func(tx *store.Tx) error {
			if err := tx.SkipAudit(ctx, size); err != nil {
				return err
			}
			return tx.Audit(ctx, api.AuditEntry{
				Actor: "system", Action: "database.restored", Decision: "allowed",
				Reason: fmt.Sprintf("the database was at audit entry %d, the log at %d", next, size),
			})
		}); err != nil {
			return err
		}
	}
	if err := m.appender.Flush(ctx); err != nil {
		return err
	}
	if next, err = m.store.NextAudit(ctx); err != nil {
		return err
	}
	if size = m.audit.Size(); size < next {
		return fmt.Errorf("%w: it ends at entry %d but %d were written: restore the directory audit/ from a copy", audit.ErrDamaged, size, next)
	}
	return nil
}

func (m *Manager) auditHealth(err error) {
	if err == nil {
		m.Conditions.Clear("audit_log_stalled")
		return
	}
	m.Conditions.Raise(threat.Condition{
		Code: "audit_log_stalled", Severity: threat.Critical,
		Text:   "Audit entries wait in the database and cannot be written to the log: " + err.Error(),
		Advice: "Free space on the file system that holds the manager's audit directory. If the log is damaged, keep a copy and restore it.",
	})
}

// Run serves until ctx ends.
func (m *Manager) Run(ctx context.Context) error {
	return task.Run(ctx, m.appender.Run, m.wakeAppender, m.housekeep, m.serve)
}

// wakeAppender tells the appender about every change. A change that succeeded
// also says that there is room again.
func (m *Manager) wakeAppender(ctx context.Context) error {
	changed, stop := m.store.Watch()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
			m.Conditions.Clear(conditionFull)
			m.appender.Wake()
		}
	}
}

// housekeep deletes expired records every few minutes.
func (m *Manager) housekeep(ctx context.Context) error {
	for {
		err := m.store.Update(ctx, func(tx *store.Tx) error {
			changed, err := tx.Expire(ctx)
			if err != nil || !changed {
				return err
			}
			return m.reconfigure(ctx, tx, "system", "an allowed object expired")
		})
		if err != nil && ctx.Err() == nil {
			m.Logger.ErrorContext(ctx, "expired records were not deleted", slog.Any("error", err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(5 * time.Minute):
		}
	}
}

// Close closes the databases.
func (m *Manager) Close() error {
	var errs []error
	if m.audit != nil {
		errs = append(errs, m.audit.Close())
	}
	if m.store != nil {
		errs = append(errs, m.store.Close())
	}
	return errors.Join(errs...)
}

// Handler is the whole API, for tests and embedding.
func (m *Manager) Handler() http.Handler { return m.web.handler }

// OpenAPI returns the OpenAPI 3.1 document as indented JSON.
func (m *Manager) OpenAPI() ([]byte, error) { return m.web.document() }

// hash is how secrets are stored: they have 256 random bits, so a plain
// SHA-256 is enough.
func hash(secret string) [32]byte { return sha256.Sum256([]byte(secret)) }

func hexHash(secret string) string {
	h := hash(secret)
	return hex.EncodeToString(h[:])
}
