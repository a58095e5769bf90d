-- +goose Up
CREATE TABLE outbox (
    seq     INTEGER PRIMARY KEY AUTOINCREMENT,
    kind    TEXT NOT NULL,
    id      TEXT NOT NULL,
    payload BLOB NOT NULL,
    UNIQUE (kind, id)
);
-- Findings that are neither resolved nor dismissed, by what makes them the same.
CREATE TABLE finding (
    key     TEXT PRIMARY KEY,
    id      TEXT NOT NULL UNIQUE,
    payload BLOB NOT NULL
);
CREATE TABLE setting (
    key   TEXT PRIMARY KEY,
    value BLOB NOT NULL
);
