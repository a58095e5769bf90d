package scan

import "sync/atomic"

type counters struct {
	known, content, joined, inspected atomic.Int64
}

// Stats are counters since the start, named as in the metrics, and the depth
// of the queue.
func (s *Service) Stats() map[string]int64 {
	return map[string]int64{
		"scan_known_total":       s.stats.known.Load(),     // answered by inode version
		"scan_content_total":     s.stats.content.Load(),   // answered by content hash
		"scan_joined_total":      s.stats.joined.Load(),    // joined an inspection under way
		"scan_inspected_total":   s.stats.inspected.Load(), // asked the engine
		"scan_dropped_total":     s.cache.Dropped(),        // cache writes given up
		"scan_waiting_on_access": int64(s.queue.Waiting(OnAccess)),
		"scan_waiting_on_demand": int64(s.queue.Waiting(OnDemand)),
		"scan_waiting_scheduled": int64(s.queue.Waiting(Scheduled)),
		"scan_inodes_in_memory":  int64(s.cache.Len()),
	}
}
