package store

import (
	"time"

	"github.com/oklog/ulid/v2"
)

// NewID returns a new ULID: 26 characters that sort by time.
func NewID() string { return ulid.Make().String() }

// ulidBefore returns the smallest ULID of a moment.
func ulidBefore(at time.Time) string {
	var id ulid.ULID
	if at.UnixMilli() < 0 || id.SetTime(uint64(at.UnixMilli())) != nil {
		return ""
	}
	return id.String()
}
