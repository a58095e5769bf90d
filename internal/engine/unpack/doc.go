// Package unpack opens containers found in files: archives, compressed streams
// and packages, also when they are appended to another file. It is written for
// hostile input and runs inside the sandboxed engine process: every length is
// bounded, nothing is trusted because a header says so, and what could not be
// unpacked is reported as a threat.Reason.
//
// One Walk opens one container and hands each member to a visitor; the visitor
// decides whether to go deeper. A Budget is shared by all walks over one file,
// so that nesting does not multiply the limits.
//
// Memory: members that are stored uncompressed in a container that is in memory
// are slices of it. Everything else is a stream that the visitor reads. The
// decoders hold at most maxWindow bytes of history each (LZMA, zstd) or a few
// MB (bzip2, LZ4, deflate), and there is at most one chain of them per nesting
// level that is being streamed. Decoders kept for reuse never had large windows.
//
// 7z and LZMA are read by code of our own rather than by a library, because
// those we know allocate what a header says (files, dictionaries of 4 GB) or
// derive AES keys with as many rounds as it says, neither of which a caller can
// prevent; and because they have no branch filters for xz.
package unpack
