// Package yara compiles YARA rules and matches them with libyara 4.5 through
// cgo. Rules are split by content class, and operands of their conditions that
// a class decides (a field of the PE module outside of PE files) are replaced
// by their value (see package ruleset). Everything else is left to libyara;
// the tests compare the results with those of all rules together.
//
// Compiled rules are bound to the libyara that made them and are trusted by
// it: load only what this machine compiled. Matching never touches files: it
// works on bytes in private memory.
//
// Building: libyara 4.5 and its development files must be installed.
//
//	CGO_ENABLED=1 go build ./...                                       shared libyara, for development
//	CGO_ENABLED=1 go build -tags yara_static,osusergo,netgo ./cmd/lazaret-engine    everything static, needs nothing on its host
//
// Modules: what Debian's libyara offers, except "magic", whose data base is a
// file that the sandbox does not let in.
package yara

// With -static the linker also warns that libcrypto can call getaddrinfo and
// dlopen; the sandbox forbids both, and libyara uses neither.

// #cgo yara_static LDFLAGS: -static -Wl,--start-group -lyara -lmagic -ljansson -lcrypto -llzma -lbz2 -lz -lm -Wl,--end-group
import "C"
