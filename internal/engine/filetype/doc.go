// Package filetype recognises what a file is by its content, never by its
// name. It looks only at the first HeadLen bytes, allocates nothing and never
// fails: what it does not know is Data.
//
// The magic numbers are those of the formats' own specifications: ELF gABI,
// Microsoft PE/COFF, PKWARE APPNOTE 4.3, POSIX.1 pax/ustar, RFC 1952 (gzip),
// RFC 8878 (zstd), the xz, 7z, LZ4 frame and bzip2 descriptions, cpio(5),
// ar(5), the RPM file format and ISO 32000 (PDF).
package filetype
