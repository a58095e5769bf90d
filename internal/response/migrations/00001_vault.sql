-- +goose Up
-- One row per file that was or is in the vault. phase is the write-ahead state:
-- it is set before the step it names is taken.
CREATE TABLE item (
    id      TEXT PRIMARY KEY,
    phase   TEXT NOT NULL,
    object  BLOB NOT NULL,
    finding TEXT NOT NULL,
    expires INTEGER NOT NULL, -- seconds since 1970
    ended   INTEGER NOT NULL, -- when restored or purged; 0 while held
    record  BLOB NOT NULL     -- JSON
);
CREATE INDEX item_phase ON item (phase);
CREATE INDEX item_object ON item (object);
CREATE INDEX item_finding ON item (finding);
