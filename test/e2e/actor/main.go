// Actor is the program that end-to-end tests put into container images: it
// does to a file what the test asks and prints what came of it.
package main

import (
	"errors"
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
//	crowd:N:DIR    makes a file in DIR, waits there for the file "go" and opens
//	               the file N times; prints how long the slowest open took
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
	if rest, ok := strings.CutPrefix(verb, "crowd:"); ok {
		n, dir, _ := strings.Cut(rest, ":")
		if err := wait(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		verb = "slowest:" + n
	}
	fmt.Println(loopfs.Perform(verb, path))
}

// wait says that this process is there and returns when all are to begin.
func wait(dir string) error {
	f, err := os.CreateTemp(dir, "there")
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(time.Millisecond) {
		if _, err := os.Stat(dir + "/go"); err == nil {
			return nil
		}
	}
	return errors.New("nobody said when to begin")
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
