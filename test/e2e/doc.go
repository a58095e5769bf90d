//go:build privileged

// Package e2e tests the programs as a user meets them: `lazaret up` beside a
// real containerd, and the command line. Everything that is protected lies on a
// loop file system of the test's own; the machine's file systems are never
// marked.
package e2e
