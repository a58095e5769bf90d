-- +goose Up
CREATE TABLE scan (
    seq      INTEGER PRIMARY KEY AUTOINCREMENT, -- order of arrival
    id       TEXT NOT NULL UNIQUE,
    request  BLOB NOT NULL,                     -- JSON
    state    TEXT NOT NULL,                     -- queued, running, done, cancelled, failed
    lane     TEXT NOT NULL,                     -- priority
    error    TEXT NOT NULL DEFAULT '',
    started  INTEGER NOT NULL,                  -- Unix nanoseconds
    finished INTEGER,
    cursor   BLOB,                              -- JSON; everything up to it is in summary and result
    summary  BLOB NOT NULL,                     -- JSON
    lines    INTEGER NOT NULL DEFAULT 0         -- in result
);
CREATE TABLE result (
    scan INTEGER NOT NULL REFERENCES scan (seq) ON DELETE CASCADE,
    n    INTEGER NOT NULL,
    line BLOB NOT NULL,                         -- JSON
    PRIMARY KEY (scan, n)
) WITHOUT ROWID;
