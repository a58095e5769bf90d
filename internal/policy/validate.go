package policy

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lazaret/lazaret/internal/threat"
)

// Bounds of one policy.
const (
	maxEntries = 1000 // entries of one list
	maxText    = 4096 // bytes of one text
)

// namePattern is that of a DNS subdomain, RFC 1123: names appear in URLs.
var namePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?$`)

// problem is one thing wrong with a policy and where.
type problem struct {
	path []any // keys and indices from the resource's root
	text string
}

func (p problem) Error() string {
	var b strings.Builder
	for _, step := range p.path {
		if i, ok := step.(int); ok {
			fmt.Fprintf(&b, "[%d]", i)
			continue
		}
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		fmt.Fprint(&b, step)
	}
	return b.String() + ": " + p.text
}

// Validate reports everything that is wrong with the resource in one error, a
// line each. Expired exclusions are no error: time makes any of them expire.
func (p *Policy) Validate() error { return join(p.problems()) }

// ValidateApply is Validate for the moment a person applies the policy: it
// also refuses exclusions that expire before now.
func (p *Policy) ValidateApply(now time.Time) error {
	problems := p.problems()
	for i := range p.Spec.Exclusions {
		if e := &p.Spec.Exclusions[i]; !e.Expires.IsZero() && !e.Expires.After(now) {
			problems = append(problems, problem{
				path: []any{"spec", "exclusions", i, "expires"},
				text: e.Expires.Format(time.RFC3339) + " is in the past",
			})
		}
	}
	return join(problems)
}

func join(problems []problem) error {
	errs := make([]error, len(problems))
	for i := range problems {
		errs[i] = problems[i]
	}
	return errors.Join(errs...)
}

type checker struct{ problems []problem }

func (c *checker) want(ok bool, path []any, format string, args ...any) {
	if !ok {
		c.problems = append(c.problems, problem{path: path, text: fmt.Sprintf(format, args...)})
	}
}

func at(path ...any) []any { return path }

func (p *Policy) problems() []problem {
	var c checker
	s := &p.Spec
	c.want(p.APIVersion == APIVersion, at("apiVersion"), "is %q, want %q", p.APIVersion, APIVersion)
	c.want(p.Kind == Kind, at("kind"), "is %q, want %q", p.Kind, Kind)
	c.want(namePattern.MatchString(p.Name()), at("metadata", "name"),
		"%q must be lower-case letters, digits, '-' and '.', 253 at most", p.Name())
	if p.Name() == DefaultName {
		c.want(s.Selector.specificity() == 0, at("spec", "selector"),
			"the default policy covers every workload that no other selects: it must not select")
	}
	c.want(slices.Contains([]Mode{Enforce, Monitor, Off}, s.Mode), at("spec", "mode"),
		"%q is not enforce, monitor or off", s.Mode)
	c.want(s.Partial == ChooseAllow || s.Partial == ChooseDeny, at("spec", "partial"), "%q is not allow or deny", s.Partial)
	c.want(s.FailMode == FailOpen || s.FailMode == FailClosed, at("spec", "failMode"), "%q is not open or closed", s.FailMode)
	c.want(s.Deadline >= 100*time.Millisecond && s.Deadline <= time.Minute, at("spec", "deadline"),
		"%s is not between 100ms and 1m", s.Deadline)
	c.selector(&s.Selector)
	for _, l := range []struct {
		key     string
		actions []threat.Action
	}{{"critical", s.Actions.Critical}, {"high", s.Actions.High}, {"medium", s.Actions.Medium}, {"low", s.Actions.Low}} {
		c.actions(at("spec", "actions", l.key), l.actions)
	}
	l := s.Limits
	c.want(l.Depth >= 0 && l.Members >= 0 && l.MemberSize >= 0 && l.Total >= 0 && l.Ratio >= 0 &&
		l.RatioAfter >= 0 && l.Buffer >= 0 && l.Time >= 0, at("spec", "limits"), "a limit is negative")
	c.want(len(s.Exclusions) <= maxEntries, at("spec", "exclusions"), "more than %d entries", maxEntries)
	for i := range s.Exclusions {
		c.exclusion(at("spec", "exclusions", i), &s.Exclusions[i])
	}
	g := s.Governor
	c.want(g.ActionsPerMinute >= 1 && g.ActionsPerMinute <= 1_000_000, at("spec", "governor", "actionsPerMinute"),
		"%d is not between 1 and 1000000", g.ActionsPerMinute)
	c.want(g.MaxWorkloads >= 1 && g.MaxWorkloads <= 1_000_000, at("spec", "governor", "maxWorkloads"),
		"%d is not between 1 and 1000000", g.MaxWorkloads)
	return c.problems
}

func (c *checker) selector(s *Selector) {
	path := func(more ...any) []any { return append(at("spec", "selector"), more...) }
	for i, k := range s.Kinds {
		c.want(k == threat.KindContainer || k == threat.KindHost || k == threat.KindVM, path("kinds", i),
			"%q is not container, host or vm", k)
	}
	c.texts(path("tenants"), s.Tenants)
	c.texts(path("namespaces"), s.Namespaces)
	c.texts(path("images"), s.Images)
	c.want(len(s.Kinds) <= 3, path("kinds"), "more than 3 entries")
	c.want(len(s.MatchLabels) <= maxEntries, path("matchLabels"), "more than %d entries", maxEntries)
	c.want(len(s.MatchExpressions) <= maxEntries, path("matchExpressions"), "more than %d entries", maxEntries)
	for i := range s.MatchExpressions {
		e, here := &s.MatchExpressions[i], path("matchExpressions", i)
		c.want(e.Key != "", append(here, "key"), "must not be empty")
		switch e.Operator {
		case In, NotIn:
			c.want(len(e.Values) > 0, append(here, "values"), "%s needs values", e.Operator)
		case Exists, DoesNotExist:
			c.want(len(e.Values) == 0, append(here, "values"), "%s takes no values", e.Operator)
		default:
			c.want(false, append(here, "operator"), "%q is not In, NotIn, Exists or DoesNotExist", e.Operator)
		}
	}
}

func (c *checker) texts(path []any, list []string) {
	c.want(len(list) <= maxEntries, path, "more than %d entries", maxEntries)
	for i, s := range list {
		c.want(s != "" && len(s) <= maxText, append(slices.Clone(path), i), "must have 1 to %d bytes", maxText)
	}
}

func (c *checker) actions(path []any, list []threat.Action) {
	has := map[threat.Action]bool{}
	for i, a := range list {
		here := append(slices.Clone(path), i)
		switch a {
		case threat.Allow, threat.Deny, threat.Quarantine, threat.Delete, threat.Kill:
		default:
			c.want(false, here, "%q is not allow, deny, quarantine, delete or kill", a)
		}
		c.want(!has[a], here, "%q is named twice", a)
		has[a] = true
	}
	c.want(!has[threat.Allow] || len(has) == 1, path, "allow excludes every other action")
	c.want(!has[threat.Quarantine] || !has[threat.Delete], path, "quarantine and delete exclude each other")
}

func (c *checker) exclusion(path []any, e *Exclusion) {
	here := func(more ...any) []any { return append(slices.Clone(path), more...) }
	c.want(len(e.Paths)+len(e.Hashes)+len(e.Signatures) > 0, path, "needs paths, hashes or signatures")
	c.texts(here("paths"), e.Paths)
	for i, p := range e.Paths {
		c.want(strings.HasPrefix(p, "/"), here("paths", i), "%q must start with /", p)
		c.want(strings.Trim(p, "/*") != "", here("paths", i), "%q excludes everything: use mode off", p)
	}
	c.want(len(e.Hashes) <= maxEntries, here("hashes"), "more than %d entries", maxEntries)
	for i, h := range e.Hashes {
		c.want(!h.IsZero(), here("hashes", i), "must not be empty")
	}
	c.texts(here("signatures"), e.Signatures)
	for i, s := range e.Signatures {
		c.want(strings.Trim(s, "*") != "", here("signatures", i), "%q excludes everything: use mode off", s)
	}
	c.want(strings.TrimSpace(e.Reason) != "" && len(e.Reason) <= maxText, here("reason"), "is mandatory: say why, in at most %d bytes", maxText)
	c.want(strings.TrimSpace(e.Owner) != "" && len(e.Owner) <= maxText, here("owner"), "is mandatory: say who answers for it")
	c.want(!e.Expires.IsZero(), here("expires"), "is mandatory: an RFC 3339 time or a date")
}
