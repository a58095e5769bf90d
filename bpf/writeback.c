// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Reports the first time that a watched inode's page cache becomes dirty. This
 * sees what fanotify does not: a store to a shared mapping. The tracepoint is
 * writeback_dirty_folio (include/trace/events/writeback.h, Linux 5.18).
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

/* An inode: s_dev in the kernel's encoding (major << 20 | minor) and i_ino. */
struct inode_key {
	__u64 ino;
	__u32 dev;
	__u32 pad;
};

/* What did not reach user space. */
struct loss {
	__u64 events;
};

const struct inode_key *unused_key __attribute__((unused));
const struct loss *unused_loss __attribute__((unused));

/* The watched inodes; the size is set by the loader. An insertion into a full
 * map fails, and the inode is then not remembered. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1);
	__type(key, struct inode_key);
	__type(value, __u8);
} watched SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} dirtied SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct loss);
} losses SEC(".maps");

SEC("tp_btf/writeback_dirty_folio")
int BPF_PROG(writeback_dirty_folio, struct folio *folio, struct address_space *mapping)
{
	struct inode_key key = {};
	struct inode *inode;
	struct loss *loss;
	__u32 zero = 0;

	if (!mapping)
		return 0;
	inode = mapping->host;
	if (!inode)
		return 0;
	key.ino = inode->i_ino;
	key.dev = inode->i_sb->s_dev;
	if (!bpf_map_lookup_elem(&watched, &key))
		return 0;
	/* One report per watch: the receiver removes the mark, so later stores
	 * change nothing. Only a report that got through ends the watch. */
	if (bpf_ringbuf_output(&dirtied, &key, sizeof(key), 0)) {
		loss = bpf_map_lookup_elem(&losses, &zero);
		if (loss)
			loss->events++;
		return 0;
	}
	bpf_map_delete_elem(&watched, &key);
	return 0;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
