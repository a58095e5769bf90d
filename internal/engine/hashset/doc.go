// Package hashset answers "is this digest known to be bad?" for tens of
// millions of digests with a few dozen megabytes of memory: a filter in memory
// says no for practically every clean file, and a sorted file confirms the
// rest with one read.
//
// # File format, version 1
//
// One file holds the digests of one algorithm. All integers are little-endian,
// all checksums are CRC-32C. The sections follow each other without gaps other
// than the padding to a multiple of 4096 that aligns the next section:
//
//	blocks    B blocks of 4096 bytes. A block holds up to R records sorted by
//	          key, zero padding, and in its last 4 bytes the checksum of the
//	          block's number (u32) followed by its first 4092 bytes. All blocks
//	          but the last are full.
//	          record = key (16, 20 or 32 bytes), name number (u32) and, only if
//	          the set has sizes, the object's size (i64, -1: any)
//	index     what stays in memory, one checksum over all of it:
//	            shards   S × 56 bytes: first key (zero padded to 32 bytes), seed
//	                     (u64), segment length (u32), segment count (u32), offset
//	                     of the shard's fingerprints in the filters (u64)
//	            fences   B × key: the first key of each block
//	            sizes    only if the set has sizes: 2^20 bits, bit h(size) is set
//	                     when an entry has that size
//	            filters  u16 fingerprints of the shards
//	offsets   N × u64: where in the names each name starts
//	names     N × (severity u8, length u16, the name's bytes, and the checksum
//	          (u32) of the name's number (u32) followed by those)
//	trailer   104 bytes: magic, counts, lengths, checksums (see layout.go)
//
// A shard is a run of consecutive records with a 3-wise binary fuse filter of
// 16-bit fingerprints over bytes 8 to 16 of the keys (Graf and Lemire, "Binary
// Fuse Filters: Fast and Smaller Than Xor Filters", JEA 2022): 18 bits per key,
// and one look-up in 65,000 of an unknown digest reads a block. Shards exist so
// that building needs memory for one of them only.
//
// Every section is protected: what is in memory is checked once by Open, blocks
// and names each time they are read. A damaged file gives an error, never a
// wrong answer.
//
// # Memory
//
// The index is mapped read-only, so that several processes share it: 10 million
// SHA-256 digests take 25.5 MB of index, 370 MB of file, and no heap. The file
// must belong to the service and never be changed in place. Building 10 million
// entries needs a peak of about 100 MB of heap and temporary files of about the
// size of the result, unlinked from the start.
package hashset
