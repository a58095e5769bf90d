package main
import ("context";"github.com/lazaret/lazaret/bench/report")
func scan(ctx context.Context, l *lab) (*report.Part, error) { return nil, nil }
func memory(ctx context.Context, l *lab) (*report.Part, error) { return nil, nil }
type corpus struct{}
type ruleset struct{}
