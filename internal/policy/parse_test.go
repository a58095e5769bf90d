package policy

import (
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/lazaret/lazaret/internal/threat"
)

func TestParseFile(t *testing.T) {
	t.Parallel()
	policies, err := ParseFile("testdata/full.yaml")
	require.NoError(t, err)
	require.Len(t, policies, 2)
	shop := policies[0].Spec
	require.Equal(t, "shop", policies[0].Name())
	require.Equal(t, 10, shop.Priority)
	require.Equal(t, []threat.Kind{threat.KindContainer}, shop.Selector.Kinds)
	require.Equal(t, Expression{Key: "tier", Operator: In, Values: []string{"front", "back"}}, shop.Selector.MatchExpressions[0])
	require.Equal(t, OnAccess{Open: true, Exec: true}, shop.OnAccess)
	require.Equal(t, []threat.Action{threat.Deny, threat.Kill, threat.Quarantine}, shop.Actions.Critical)
	require.Equal(t, 2*time.Second, shop.Deadline)
	require.Equal(t, int64(1<<20), shop.Limits.MemberSize)
	require.Equal(t, 10*time.Second, shop.Limits.Time)
	require.Equal(t, time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), shop.Exclusions[0].Expires)

	want := Default().Spec
	want.Mode = Monitor
	require.Equal(t, want, policies[1].Spec, "keys that are left out have the default's values")
}

func TestJSONRoundTrip(t *testing.T) {
	t.Parallel()
	policies, err := ParseFile("testdata/full.yaml")
	require.NoError(t, err)
	policies[0].Spec.Exclusions[0].Hashes = []threat.Hash{{1, 2, 3}}
	policies[0].Spec.Exclusions[0].Reason = "tab\tquote\" emoji 😀 <b> \u2028"
	for _, p := range append(policies, Default()) {
		b, err := json.Marshal(p)
		require.NoError(t, err)
		var back Policy
		require.NoError(t, json.Unmarshal(b, &back), "%s", b)
		require.Equal(t, p, back)
		indented, err := json.MarshalIndent(p, "", "\t")
		require.NoError(t, err)
		require.NoError(t, json.Unmarshal(indented, &back), "%s", indented)
		require.Equal(t, p, back)
	}
	// Other JSON writers escape what is not ASCII as surrogate pairs.
	var p Policy
	require.NoError(t, json.Unmarshal([]byte(`{"apiVersion":"lazaret\/v1","kind":"Policy","metadata":{"name":"x"},
		"spec":{"exclusions":[{"paths":["/a"],"reason":"\ud83d\ude00","owner":"o","expires":"2030-01-01T00:00:00Z"}]}}`), &p))
	require.Equal(t, "😀", p.Spec.Exclusions[0].Reason)
}

func TestParseErrorsNameTheLine(t *testing.T) {
	t.Parallel()
	head := "apiVersion: lazaret/v1\nkind: Policy\nmetadata: {name: x}\nspec:\n"
	for name, tt := range map[string]struct{ text, want string }{
		"unknown key":      {head + "  mode: enforce\n  modes: off\n", `line 6: unknown key "modes"`},
		"nested unknown":   {head + "  onAccess:\n    opens: true\n", `line 6: unknown key "opens"`},
		"unknown limit":    {head + "  limits: {deep: 3}\n", `line 5: unknown key "deep"`},
		"bad mode":         {head + "  mode: on\n", `line 5: spec.mode: "on" is not enforce, monitor or off`},
		"bad action":       {head + "  actions:\n    high: [deny, burn]\n", `line 6: spec.actions.high[1]: "burn" is not`},
		"two removals":     {head + "  actions: {high: [delete, quarantine]}\n", "exclude each other"},
		"allow and deny":   {head + "  actions: {high: [allow, deny]}\n", "allow excludes"},
		"second document":  {head + "  mode: off\n---\nkind: Policy\n", `line 7: apiVersion: is ""`},
		"same name":        {head + "  mode: off\n---\n" + head, `line 6: policy "x" is already in line 1`},
		"no reason":        {head + "  exclusions:\n    - paths: [/a]\n      owner: o\n      expires: 2030-01-01\n", "line 6: spec.exclusions[0].reason: is mandatory"},
		"no owner":         {head + "  exclusions:\n    - paths: [/a]\n      reason: r\n      expires: 2030-01-01\n", "owner: is mandatory"},
		"no expiry":        {head + "  exclusions:\n    - paths: [/a]\n      reason: r\n      owner: o\n", "expires: is mandatory"},
		"excludes nothing": {head + "  exclusions: [{reason: r, owner: o, expires: 2030-01-01}]\n", "needs paths, hashes or signatures"},
		"excludes all":     {head + "  exclusions: [{paths: [/**], reason: r, owner: o, expires: 2030-01-01}]\n", "use mode off"},
		"bad hash":         {head + "  exclusions:\n  - hashes: [abc]\n", "64 hexadecimal digits"},
		"bad expiry":       {head + "  exclusions:\n  - expires: soon\n", "line 6"},
		"bad expression":   {head + "  selector:\n    matchExpressions:\n    - {key: a, operator: Is}\n", `line 7: spec.selector.matchExpressions[0].operator: "Is"`},
		"default selects":  {"apiVersion: lazaret/v1\nkind: Policy\nmetadata: {name: default}\nspec: {selector: {tenants: [a]}}\n", "must not select"},
		"bad name":         {"apiVersion: lazaret/v1\nkind: Policy\nmetadata: {name: A b}\n", "lower-case"},
		"governor":         {head + "  governor: {actionsPerMinute: 0}\n", "not between 1 and"},
		"deadline":         {head + "  deadline: 1ms\n", "not between 100ms and 1m"},
		"not YAML":         {"a: [", "line 1"},
		"not a mapping":    {"- 1\n", "line 1"},
		"no mapping value": {"hello\n", "line 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := Parse(strings.NewReader(tt.text))
			require.ErrorContains(t, err, tt.want)
			require.NotContains(t, err.Error(), "policy.Spec", "no Go types in messages")
		})
	}
}

func TestParseNamesTheFile(t *testing.T) {
	t.Parallel()
	path := t.TempDir() + "/p.yaml"
	require.NoError(t, os.WriteFile(path, []byte("kind: Cat\n"), 0o600))
	_, err := ParseFile(path)
	require.ErrorContains(t, err, path)
	_, err = Parse(strings.NewReader(strings.Repeat("#", maxBytes+1)))
	require.ErrorContains(t, err, "more than")
	policies, err := Parse(strings.NewReader("---\n---\n# nothing\n"))
	require.NoError(t, err)
	require.Empty(t, policies)
}

func TestValidateApplyRefusesThePast(t *testing.T) {
	t.Parallel()
	policies, err := ParseFile("testdata/full.yaml")
	require.NoError(t, err)
	expires := policies[0].Spec.Exclusions[0].Expires
	require.NoError(t, policies[0].ValidateApply(expires.Add(-time.Second)))
	require.NoError(t, policies[0].Validate())
	require.ErrorContains(t, policies[0].ValidateApply(expires), "spec.exclusions[0].expires: 2030-01-01T00:00:00Z is in the past")
}

func FuzzParse(f *testing.F) {
	full, err := os.ReadFile("testdata/full.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(full))
	f.Add(`{"apiVersion":"lazaret/v1","kind":"Policy","metadata":{"name":"x"},"spec":{"mode":"off"}}`)
	f.Add("a: &a [*a]\n---\n? {}\n")
	f.Fuzz(func(t *testing.T, text string) {
		policies, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for _, p := range policies {
			require.NoError(t, p.Validate())
			b, err := json.Marshal(p)
			require.NoError(t, err)
			var back Policy
			require.NoError(t, json.Unmarshal(b, &back), "%s", b)
		}
		set := NewSet(policies)
		w := threat.Workload{ID: "container/1", Kind: threat.KindContainer, Image: "nginx"}
		p, _ := set.For(w)
		Decide(p, Input{Workload: w, Verdict: threat.Malicious, Severity: threat.High, Location: threat.Location{Path: "/a/b"}})
	})
}
