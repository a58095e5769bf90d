package response

import (
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/threat"
)

// The phases of an item. Each is written durably before the first step that
// belongs to it.
const (
	phaseStoring   = api.ItemStoring  // content is being copied; the original is untouched
	phaseRemoving  = "removing"       // content is safe in the vault; the original is being removed
	phaseHeld      = api.ItemHeld     // content only in the vault
	phaseRestoring = "restoring"      // content is being put back
	phaseRestored  = api.ItemRestored // content only at the place it was restored to
	phasePurged    = api.ItemPurged   // content deleted, the record stays for a while
	phaseDeleting  = "deleting"       // an original is being deleted without a copy
)

// Item is one file in the vault with everything needed to put it back.
type Item struct {
	api.QuarantineItem
	// Path and HostPath are the raw names of Location's.
	Path     []byte `json:"raw_path"`
	HostPath []byte `json:"raw_host_path,omitempty"`
	// AccessTime and ChangeTime complete ModTime.
	AccessTime time.Time `json:"access_time"`
	ChangeTime time.Time `json:"change_time"`
	Xattrs     []Xattr   `json:"xattrs,omitempty"`
	// LostXattrs names the extended attributes that were too large to keep.
	LostXattrs []string `json:"lost_xattrs,omitempty"`
	// Links is the number of other names of the file that were not removed.
	Links uint64 `json:"links,omitempty"`
	// RestoredTo is where the file was put back, as Target.Path.
	RestoredTo []byte `json:"restored_to,omitempty"`

	Work work `json:"work,omitzero"`

	phase string
}

// work is what recovery needs to finish or undo what a crash interrupted.
type work struct {
	PID      int    `json:"pid,omitempty"`
	Start    uint64 `json:"start,omitempty"`
	Path     []byte `json:"path,omitempty"`
	HostPath []byte `json:"host_path,omitempty"`
	// Tmp is the name in the directory that the original is renamed to, or that
	// the restored file has before it gets its own.
	Tmp string `json:"tmp,omitempty"`
	// Ino of the original or of the restored file; Name is the restored file's.
	Ino  uint64 `json:"ino,omitempty"`
	Name []byte `json:"name,omitempty"`
}

func (w *work) target() Target {
	return Target{PID: w.PID, Start: w.Start, Path: string(w.Path), HostPath: string(w.HostPath)}
}

func (w *work) aim(t Target) {
	w.PID, w.Start, w.Path, w.HostPath = t.PID, t.Start, []byte(t.Path), []byte(t.HostPath)
}

// apiState returns the state that people see for a phase.
func apiState(phase string) string {
	switch phase {
	case phaseRemoving, phaseDeleting:
		return phaseStoring
	case phaseRestoring:
		return phaseHeld
	}
	return phase
}

// Meta is what the caller knows about a file that is taken.
type Meta struct {
	Finding  string
	Object   threat.Hash // what was inspected; zero: whatever is read
	Workload threat.Workload
	Location threat.Location
}

// describe fills an item from the file's inode.
func describe(f *os.File, st *unix.Stat_t, item *Item) error {
	item.UID, item.GID, item.Mode, item.Size = st.Uid, st.Gid, st.Mode&0o7777, st.Size
	item.ModTime = time.Unix(st.Mtim.Unix()).UTC()
	item.AccessTime = time.Unix(st.Atim.Unix()).UTC()
	item.ChangeTime = time.Unix(st.Ctim.Unix()).UTC()
	if st.Nlink > 0 {
		item.Links = uint64(st.Nlink) - 1
	}
	var err error
	item.Xattrs, item.LostXattrs, err = readXattrs(f)
	return err
}

// unprintable undoes threat.Printable. A name may hold such a text by itself, so it is
// only tried when there is no file of that name.
func unprintable(printed string) string {
	var b strings.Builder
	for i := 0; i < len(printed); i++ {
		if strings.HasPrefix(printed[i:], `\x`) && i+4 <= len(printed) {
			if n, err := strconv.ParseUint(printed[i+2:i+4], 16, 8); err == nil && n >= 0x80 {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(printed[i])
	}
	return b.String()
}
