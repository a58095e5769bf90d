package yara

// #include <malloc.h>
import "C"

// Trim gives memory that libyara has freed back to the system.
func Trim() { C.malloc_trim(0) }

// Rules is the number of different rules that are loaded and can be reported.
func (s *Scanner) Rules() int { return s.count }
