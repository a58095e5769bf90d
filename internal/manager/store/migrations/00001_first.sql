-- +goose Up
CREATE TABLE counter (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counter (name, value) VALUES ('audit', 0);

CREATE TABLE setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE node (
  name TEXT PRIMARY KEY,
  last_seen INTEGER NOT NULL,
  conditions TEXT NOT NULL DEFAULT '',
  report TEXT NOT NULL,
  sequence INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;

CREATE TABLE batch (
  node TEXT NOT NULL,
  id TEXT NOT NULL,
  received INTEGER NOT NULL,
  PRIMARY KEY (node, id)
) WITHOUT ROWID;

CREATE TABLE finding (
  id TEXT PRIMARY KEY,
  node TEXT NOT NULL,
  batch TEXT NOT NULL,
  rev INTEGER NOT NULL DEFAULT 1,
  last_seen INTEGER NOT NULL,
  tenant TEXT NOT NULL,
  workload TEXT NOT NULL,
  severity INTEGER NOT NULL,
  object TEXT NOT NULL,
  state TEXT NOT NULL,
  triage TEXT NOT NULL DEFAULT '',
  triaged INTEGER NOT NULL DEFAULT 0,
  search TEXT NOT NULL,
  body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX finding_state ON finding (state, id);
CREATE INDEX finding_workload ON finding (workload, id);
CREATE INDEX finding_object ON finding (object);

CREATE TABLE decision (
  finding TEXT NOT NULL REFERENCES finding (id) ON DELETE CASCADE,
  seq INTEGER NOT NULL,
  command TEXT NOT NULL DEFAULT '',
  body TEXT NOT NULL,
  PRIMARY KEY (finding, seq)
) WITHOUT ROWID;
CREATE INDEX decision_command ON decision (command);

CREATE TABLE quarantine (
  id TEXT PRIMARY KEY,
  node TEXT NOT NULL,
  batch TEXT NOT NULL,
  tenant TEXT NOT NULL,
  state TEXT NOT NULL,
  finding TEXT NOT NULL,
  body TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE policy (
  name TEXT PRIMARY KEY,
  version INTEGER NOT NULL,
  etag TEXT NOT NULL,
  updated INTEGER NOT NULL,
  by TEXT NOT NULL,
  resource TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE policy_history (
  name TEXT NOT NULL,
  version INTEGER NOT NULL,
  updated INTEGER NOT NULL,
  by TEXT NOT NULL,
  resource TEXT,
  PRIMARY KEY (name, version)
) WITHOUT ROWID;

CREATE TABLE user (
  name TEXT PRIMARY KEY,
  roles TEXT NOT NULL,
  tenants TEXT NOT NULL,
  password TEXT NOT NULL,
  created INTEGER NOT NULL
) WITHOUT ROWID;

-- Tokens of users, nodes and sessions: only the SHA-256 of the secret is here.
CREATE TABLE token (
  id TEXT PRIMARY KEY,
  kind TEXT NOT NULL,
  hash BLOB NOT NULL UNIQUE,
  name TEXT NOT NULL,
  owner TEXT NOT NULL,
  created INTEGER NOT NULL,
  expires INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX token_owner ON token (kind, owner);

CREATE TABLE command (
  id TEXT PRIMARY KEY,
  node TEXT NOT NULL,
  sequence INTEGER NOT NULL,
  verb TEXT NOT NULL,
  state TEXT NOT NULL DEFAULT 'pending',
  body TEXT NOT NULL,
  result TEXT,
  UNIQUE (node, sequence)
) WITHOUT ROWID;
CREATE INDEX command_pending ON command (node, sequence) WHERE state = 'pending';

CREATE TABLE scan (
  id TEXT PRIMARY KEY,
  node TEXT NOT NULL,
  batch TEXT NOT NULL DEFAULT '',
  command TEXT NOT NULL DEFAULT '',
  state TEXT NOT NULL,
  body TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX scan_command ON scan (command);

CREATE TABLE allowed (
  object TEXT PRIMARY KEY,
  expires INTEGER NOT NULL,
  body TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE event (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  name TEXT NOT NULL,
  tenant TEXT NOT NULL,
  body TEXT NOT NULL
);

CREATE TABLE idempotency (
  actor TEXT NOT NULL,
  key TEXT NOT NULL,
  request BLOB NOT NULL,
  answer TEXT NOT NULL,
  created INTEGER NOT NULL,
  PRIMARY KEY (actor, key)
) WITHOUT ROWID;

CREATE TABLE audit_outbox (
  idx INTEGER PRIMARY KEY,
  body BLOB NOT NULL
);
