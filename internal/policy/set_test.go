package policy

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/lazaret/lazaret/internal/threat"
)

func named(name string, priority int, s Selector) Policy {
	p := Default()
	p.Metadata.Name, p.Spec.Priority, p.Spec.Selector = name, priority, s
	return p
}

func TestForPrecedence(t *testing.T) {
	t.Parallel()
	web := threat.Workload{
		ID: "container/1", Kind: threat.KindContainer, Tenant: "acme", Namespace: "shop",
		Image: "registry.example.org/team/nginx:1.27", Labels: map[string]string{"app": "web", "tier": "front"},
	}
	container := Selector{Kinds: []threat.Kind{threat.KindContainer}}
	specific := Selector{Kinds: []threat.Kind{threat.KindContainer}, Tenants: []string{"acme"}}
	for name, tt := range map[string]struct {
		policies []Policy
		want     string
	}{
		"nothing selects":        {nil, "default"},
		"kind differs":           {[]Policy{named("a", 0, Selector{Kinds: []threat.Kind{threat.KindVM}})}, "default"},
		"selected":               {[]Policy{named("a", 0, container)}, "a"},
		"priority":               {[]Policy{named("a", 1, container), named("b", 2, container)}, "b"},
		"priority first":         {[]Policy{named("a", 1, specific), named("b", 2, container)}, "b"},
		"more specific":          {[]Policy{named("a", 1, container), named("b", 1, specific)}, "b"},
		"name":                   {[]Policy{named("b", 1, container), named("a", 1, container)}, "a"},
		"negative beats default": {[]Policy{named("a", -5, Selector{})}, "a"},
		"image":                  {[]Policy{named("a", 0, Selector{Images: []string{"*/nginx:*"}})}, "a"},
		"image differs":          {[]Policy{named("a", 0, Selector{Images: []string{"nginx:*"}})}, "default"},
		"namespace":              {[]Policy{named("a", 0, Selector{Namespaces: []string{"x", "shop"}})}, "a"},
		"labels":                 {[]Policy{named("a", 0, Selector{MatchLabels: map[string]string{"app": "web"}})}, "a"},
		"labels differ":          {[]Policy{named("a", 0, Selector{MatchLabels: map[string]string{"app": "db"}})}, "default"},
		"label absent":           {[]Policy{named("a", 0, Selector{MatchLabels: map[string]string{"x": ""}})}, "default"},
		"in":                     {[]Policy{named("a", 0, Selector{MatchExpressions: []Expression{{"tier", In, []string{"front"}}}})}, "a"},
		"not in":                 {[]Policy{named("a", 0, Selector{MatchExpressions: []Expression{{"tier", NotIn, []string{"front"}}}})}, "default"},
		"not in, absent":         {[]Policy{named("a", 0, Selector{MatchExpressions: []Expression{{"x", NotIn, []string{"front"}}}})}, "a"},
		"exists":                 {[]Policy{named("a", 0, Selector{MatchExpressions: []Expression{{"tier", Exists, nil}}})}, "a"},
		"does not exist":         {[]Policy{named("a", 0, Selector{MatchExpressions: []Expression{{"tier", DoesNotExist, nil}}})}, "default"},
		"later replaces":         {[]Policy{named("a", 0, container), named("a", 0, Selector{Kinds: []threat.Kind{threat.KindVM}})}, "default"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p, e := NewSet(tt.policies).For(web)
			require.Equal(t, tt.want, p.Name())
			require.Equal(t, tt.want, e.Policy)
			require.NotEmpty(t, e.Considered)
			for _, c := range e.Considered {
				require.NotEmpty(t, c.Why)
				require.Equal(t, c.Policy == tt.want, c.Applies)
			}
		})
	}
}

func TestDefaultCanBeReplaced(t *testing.T) {
	t.Parallel()
	own := Default()
	own.Spec.Mode, own.Spec.Priority = Monitor, 99
	s := NewSet([]Policy{own, named("a", 0, Selector{Kinds: []threat.Kind{threat.KindVM}})})
	p, _ := s.For(threat.Workload{ID: "host", Kind: threat.KindHost})
	require.Equal(t, Monitor, p.Spec.Mode)
	p, _ = s.For(threat.Workload{ID: "vm/1", Kind: threat.KindVM})
	require.Equal(t, "a", p.Name(), "the default comes last whatever its priority")
	require.Len(t, s.Policies(), 2)
}

func TestForNoticesChangedLabels(t *testing.T) {
	t.Parallel()
	s := NewSet([]Policy{named("a", 0, Selector{MatchLabels: map[string]string{"app": "web"}})})
	w := threat.Workload{ID: "container/1", Labels: map[string]string{"app": "web"}}
	p, _ := s.For(w)
	require.Equal(t, "a", p.Name())
	w.Labels["app"] = "db"
	p, _ = s.For(w)
	require.Equal(t, "default", p.Name())
	for i := range 2 * cacheSize {
		s.For(threat.Workload{ID: fmt.Sprint(i)})
	}
	require.LessOrEqual(t, len(s.cache), cacheSize)
}

// Whatever the policies, every workload gets exactly one, the answer does not
// depend on their order, and asking again does not change it.
func TestEveryWorkloadGetsExactlyOnePolicy(t *testing.T) {
	t.Parallel()
	word := rapid.SampledFrom([]string{"", "a", "b", "c"})
	kind := rapid.SampledFrom([]threat.Kind{threat.KindContainer, threat.KindHost, threat.KindVM})
	selector := rapid.Custom(func(t *rapid.T) Selector {
		s := Selector{
			Kinds:       rapid.SliceOfN(kind, 0, 2).Draw(t, "kinds"),
			Tenants:     rapid.SliceOfN(word, 0, 2).Draw(t, "tenants"),
			Namespaces:  rapid.SliceOfN(word, 0, 1).Draw(t, "namespaces"),
			Images:      rapid.SliceOfN(rapid.SampledFrom([]string{"*", "a*", "b"}), 0, 1).Draw(t, "images"),
			MatchLabels: rapid.MapOfN(word, word, 0, 2).Draw(t, "labels"),
		}
		for range rapid.IntRange(0, 2).Draw(t, "expressions") {
			s.MatchExpressions = append(s.MatchExpressions, Expression{
				Key:      word.Draw(t, "key"),
				Operator: rapid.SampledFrom([]Operator{In, NotIn, Exists, DoesNotExist, "?"}).Draw(t, "operator"),
				Values:   rapid.SliceOfN(word, 0, 2).Draw(t, "values"),
			})
		}
		return s
	})
	rapid.Check(t, func(t *rapid.T) {
		var policies []Policy
		for i := range rapid.IntRange(0, 6).Draw(t, "n") {
			policies = append(policies, named(fmt.Sprintf("p%d", i), rapid.IntRange(-2, 2).Draw(t, "priority"), selector.Draw(t, "selector")))
		}
		w := threat.Workload{
			ID: "w", Kind: kind.Draw(t, "kind"), Tenant: word.Draw(t, "tenant"),
			Namespace: word.Draw(t, "namespace"), Image: word.Draw(t, "image"),
			Labels: rapid.MapOfN(word, word, 0, 3).Draw(t, "labels"),
		}
		set := NewSet(policies)
		p, e := set.For(w)
		applies := 0
		for _, c := range e.Considered {
			if c.Applies {
				applies++
				require.Equal(t, p.Name(), c.Policy)
				require.True(t, c.Selected)
			}
		}
		require.Equal(t, 1, applies)
		require.Len(t, e.Considered, len(set.Policies()))
		again, _ := set.For(w)
		require.Equal(t, p.Name(), again.Name())
		shuffled, _ := NewSet(rapid.Permutation(policies).Draw(t, "order")).For(w)
		require.Equal(t, p.Name(), shuffled.Name())
	})
}
