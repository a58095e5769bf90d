// Package builtin holds the signatures that come with the program: test files,
// and rules of our own for what attackers leave on Linux servers. Every rule
// has a sample that it must match and a harmless twin that it must not.
//
// Bad samples are inert fragments that point at reserved addresses; they are
// stored as hexadecimal text so that neither this source tree nor the program
// contains what the rules look for.
package builtin

import (
	"embed"
	"encoding/hex"
	"io/fs"
	"path"
	"strings"
)

// Prefix of the names of all built-in sources.
const Prefix = "lazaret/"

//go:embed lazaret
var rules embed.FS

//go:embed samples
var samples embed.FS

// Rules returns the sources, below Prefix.
func Rules() fs.FS { return rules }

// Sample is one file of the self-test.
type Sample struct {
	// Name for people.
	Name string
	// Signature that must match; empty if nothing may match.
	Signature string
	// Twin says that the sample only looks like something bad: it shows that
	// our own rules are exact. Rules of others may match it, as many do that
	// look for EICAR anywhere in a text.
	Twin bool
	Data []byte
}

// Own reports whether a signature's name is one of ours.
func Own(signature string) bool {
	return strings.HasPrefix(signature, "Lazaret_") || strings.HasPrefix(signature, "Lazaret.")
}

// TestString is the line by which the signature Lazaret_Test_File knows its
// test file. It is assembled so that this program does not contain it.
func TestString() string { return "LAZARET-" + "TEST-FILE-" + "7c9e6679-7425-40de-944b-e07fc1f90ae7" }

// EICAR returns the 68 bytes of the EICAR anti-virus test file
// (https://www.eicar.org), assembled so that this program does not contain it.
func EICAR() []byte {
	return []byte(`X5O!P%@AP[4\PZX54(P^)7CC)7}` + `$EICAR-STANDARD-ANTIVIRUS-` + `TEST-FILE!$H+H*`)
}

// Samples returns the known-bad samples and their harmless twins.
func Samples() []Sample {
	list := []Sample{
		{Name: "EICAR", Signature: "Lazaret_Test_EICAR", Data: EICAR()},
		{Name: "EICAR by its hash", Signature: "Lazaret.Test.EICAR", Data: EICAR()},
		{Name: "EICAR with white space", Signature: "Lazaret_Test_EICAR", Data: append(EICAR(), " \t\r\n\x1a"...)},
		{Name: "EICAR with a text after it", Twin: true, Data: append(EICAR(), "\nis what scanners are tried with"...)},
		{Name: "EICAR in the middle of a text", Twin: true, Data: append([]byte("This text talks about "), EICAR()...)},
		{Name: "Lazaret test file", Signature: "Lazaret_Test_File", Data: []byte(TestString() + "\n")},
		{Name: "Lazaret test file in a text", Twin: true, Data: []byte("use " + TestString() + "\n")},
		{Name: "empty file"},
	}
	err := fs.WalkDir(samples, "samples", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		s, err := sample(name)
		list = append(list, s)
		return err
	})
	if err != nil {
		panic(err) // the files are part of the program, and a test reads them all
	}
	return list
}

// sample reads a file named after its rule: RULE….hex must match, anything
// else must not.
func sample(name string) (Sample, error) {
	data, err := samples.ReadFile(name)
	if err != nil {
		return Sample{}, err
	}
	s := Sample{Name: path.Base(name), Data: data, Twin: true}
	if path.Ext(name) == ".hex" {
		s.Twin = false
		s.Signature, _, _ = strings.Cut(s.Name, ".")
		s.Data, err = hex.DecodeString(strings.Join(strings.Fields(string(data)), ""))
	}
	return s, err
}
