-- +goose Up
-- Content and what the last inspection of it concluded. epoch 0: never inspected.
CREATE TABLE object (
    id      INTEGER PRIMARY KEY,
    hash    BLOB NOT NULL UNIQUE,
    epoch   INTEGER NOT NULL,
    verdict INTEGER NOT NULL,
    type    TEXT NOT NULL,
    size    INTEGER NOT NULL,
    objects INTEGER NOT NULL,  -- the file and its members
    limits  INTEGER NOT NULL,  -- checksum of the limits the result depends on, 0: of none
    detail  BLOB,              -- zstd of the objects as JSON; NULL: one clean object
    sum     INTEGER NOT NULL   -- CRC-32C of the row
);
-- The newest known version of an inode and its content.
CREATE TABLE inode_version (
    dev    INTEGER NOT NULL,
    ino    INTEGER NOT NULL,
    ctime  INTEGER NOT NULL,   -- nanoseconds
    mtime  INTEGER NOT NULL,   -- nanoseconds
    size   INTEGER NOT NULL,
    object INTEGER NOT NULL,
    seen   INTEGER NOT NULL,   -- Unix seconds
    sum    INTEGER NOT NULL,
    PRIMARY KEY (dev, ino)
) WITHOUT ROWID;
-- Where an object was seen.
CREATE TABLE location (
    object   INTEGER NOT NULL,
    workload TEXT NOT NULL,
    path     TEXT NOT NULL,
    layer    TEXT NOT NULL,
    image    TEXT NOT NULL,
    host     TEXT NOT NULL,    -- path on the host
    first    INTEGER NOT NULL, -- Unix seconds
    last     INTEGER NOT NULL,
    PRIMARY KEY (object, workload, path, layer)
) WITHOUT ROWID;
-- Which files contain a member: the first eight bytes of the member's hash.
CREATE TABLE member (
    prefix INTEGER NOT NULL,
    object INTEGER NOT NULL,
    PRIMARY KEY (prefix, object)
) WITHOUT ROWID;
