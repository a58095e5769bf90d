// Lazaret-engine is the only program of Lazaret that links C. It is started by
// lazaret, never by people: "worker" inspects files it is handed, "compile"
// turns rule sources into compiled rules. Both lock themselves down first.
package main

import (
	"fmt"
	"os"

	"github.com/lazaret/lazaret/internal/engine/program"
)

func main() {
	mode := ""
	if len(os.Args) == 2 {
		mode = os.Args[1]
	}
	var err error
	switch mode {
	case "worker":
		err = program.Worker()
	case "compile":
		err = program.Compile(os.Stdin, os.Stdout)
	default:
		fmt.Fprintln(os.Stderr, "lazaret-engine is started by lazaret: see lazaret --help")
		os.Exit(2)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
