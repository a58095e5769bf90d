package response

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// flagKernelThread is PF_KTHREAD in the flags field of /proc/PID/stat
// (include/linux/sched.h).
const flagKernelThread = 0x00200000

// procStat reads the flags (field 9) and the start time in clock ticks since
// boot (field 22) of a process, proc_pid_stat(5). The command name may hold
// anything, so fields are counted from its closing parenthesis.
func procStat(pid int) (flags, start uint64, err error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, 0, err
	}
	return parseStat(b)
}

func parseStat(b []byte) (flags, start uint64, err error) {
	i := bytes.LastIndexByte(b, ')')
	fields := bytes.Fields(b[i+1:])
	if i < 0 || len(fields) < 20 {
		return 0, 0, fmt.Errorf("parsing process status: %d fields", len(fields))
	}
	if flags, err = strconv.ParseUint(string(fields[9-3]), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("parsing process status: %w", err)
	}
	if start, err = strconv.ParseUint(string(fields[22-3]), 10, 64); err != nil {
		return 0, 0, fmt.Errorf("parsing process status: %w", err)
	}
	return flags, start, nil
}

func startTime(pid int) (uint64, error) {
	_, start, err := procStat(pid)
	return start, err
}

// running reports whether the process with that number and start time exists;
// start 0 means any.
func running(pid int, start uint64) bool {
	got, err := startTime(pid)
	return err == nil && (start == 0 || got == start)
}
