// Package audit keeps the audit log: an RFC 6962 Merkle tree over JSON entries
// with signed checkpoints, so that a changed, removed, reordered or cut-off
// entry is found by anybody who has the log, the public key and, against the
// owner of the key, one older checkpoint.
//
// # Life of an entry
//
// A change of the manager and its audit entry are one database transaction;
// the entry waits in the database's outbox under its final index. The Appender
// moves outbox entries into the log and deletes them there only after a
// checkpoint that covers them is on disk. Open drops whatever lies behind the
// last checkpoint (a kill between write and checkpoint); the outbox still has
// it, so nothing is lost or written twice.
//
// # Files
//
//	entries.jsonl  one entry a line: the exact bytes of the leaf
//	offsets        little-endian uint64 per entry: where its line ends
//	hashes         32 bytes per stored hash, in the order of tlog.StoredHashIndex
//	checkpoint     signed note: origin, size, root hash (C2SP tlog-checkpoint)
//	key            note signer key, mode 0600
//	key.pub        note verifier key
//
// Sources: RFC 6962 section 2.1 (tree), golang.org/x/mod/sumdb/tlog (storage
// order, proofs), golang.org/x/mod/sumdb/note and c2sp.org/tlog-checkpoint
// (signatures).
package audit
