// Package inspect is the pipeline that runs inside the sandboxed engine
// process: it reads a file into private memory, hashes it, recognises its
// type, asks every engine and does the same for each member of the containers
// it finds, within the limits of one file.
//
// Memory of one inspection: at most Limits.Buffer for the file plus
// Limits.Total for members that are unpacked, because every byte copied out of
// a container is counted there, and the decoders' windows (package unpack). The
// objects are collected until the file's own verdict is known: at most
// Limits.Members of them, with paths of at most 512 bytes per level.
// Buffers are kept for the next file up to keepBuffer bytes each.
package inspect
