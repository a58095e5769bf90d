// Actor is the program that end-to-end tests put into container images: it
// does to a file what the test asks and prints what came of it.
package main

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/lazaret/lazaret/internal/driver/loopfs"
)

// usage: actor VERB PATH, with the verbs of loopfs.Actor.Start, and
//
//	for:DURATION   opens the file again and again, prints how often each
//	               result came and how long the slowest open took
func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: actor VERB PATH")
		os.Exit(2)
	}
	verb, path := os.Args[1], os.Args[2]
	if text, ok := strings.CutPrefix(verb, "for:"); ok {
		d, err := time.ParseDuration(text)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(2)
		}
		fmt.Println(repeat(d, path))
		return
	}
	fmt.Println(loopfs.Perform(verb, path))
}

func repeat(d time.Duration, path string) string {
	seen := map[string]int{}
	var slowest time.Duration
	for end := time.Now().Add(d); time.Now().Before(end); {
		start := time.Now()
		seen[loopfs.Perform("open", path)]++
		slowest = max(slowest, time.Since(start))
	}
	return fmt.Sprintf("ok=%d EPERM=%d kinds=%d slowest=%s", seen["ok"], seen["EPERM"], len(seen), slowest)
}
