-- +goose Up
-- Findings that are recorded and not yet acted upon.
ALTER TABLE finding ADD COLUMN pending INTEGER NOT NULL DEFAULT 0;
CREATE INDEX finding_pending ON finding (id) WHERE pending;
