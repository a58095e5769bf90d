package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/lazaret/lazaret/api"
	"github.com/lazaret/lazaret/internal/cli/output"
	"github.com/lazaret/lazaret/internal/policy"
)

func (a *app) policyCommand() *cobra.Command {
	c := &cobra.Command{Use: "policy", Short: "What is inspected where, and what happens then", Example: `  lazaret policy get`}
	c.AddCommand(a.policyApply(), a.policyGet(), a.policyHistory(), a.policyDelete(), a.policyExplain())
	return c
}

func (a *app) policyApply() *cobra.Command {
	var file string
	var dryRun bool
	c := &cobra.Command{
		Use: "apply -f FILE", Short: "Create or change policies from a YAML file", Args: cobra.NoArgs,
		Long: `Create or change the policies of a YAML file with one or more documents; - is
standard input. All of them are checked before the first is sent. A policy that
somebody else changes at the same time is refused: read it again and repeat.`,
		Example: `  lazaret policy apply -f policies.yaml
  lazaret policy get web -o yaml | sed s/enforce/monitor/ | lazaret policy apply -f -`,
		RunE: func(c *cobra.Command, _ []string) error {
			b, err := a.readInput(file)
			if err != nil {
				return fmt.Errorf("reading policies: %w", err)
			}
			policies, err := policy.Parse(bytes.NewReader(b))
			if err != nil {
				return fmt.Errorf("%s: %w", file, err)
			}
			if len(policies) == 0 {
				return fmt.Errorf("%s: there is no policy in it", file)
			}
			for i := range policies {
				if err := policies[i].ValidateApply(time.Now()); err != nil {
					return fmt.Errorf("%s: policy %s: %w", file, policies[i].Name(), err)
				}
			}
			if dryRun {
				a.say("%d policies are right; nothing was changed", len(policies))
				return nil
			}
			return a.withClient(func(client *api.Client) error {
				done := []api.PolicyResource{}
				var err error
				for i := range policies {
					var r api.PolicyResource
					if r, err = putPolicy(c, client, &policies[i]); err != nil {
						err = fmt.Errorf("applying policy %s: %w", policies[i].Name(), err)
						break
					}
					done = append(done, r)
				}
				// Those that were applied are reported even if a later one was not.
				return errors.Join(a.print(done, func(w *output.Writer) {
					for _, p := range done {
						w.Line("policy %s applied (version %d)", p.Name, p.Version)
					}
				}), err)
			})
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "", "YAML file, - for standard input (required)")
	c.Flags().BoolVar(&dryRun, "dry-run", false, "only check")
	must(c.MarkFlagRequired("file"))
	return c
}

// putPolicy changes the version that is there now; somebody who changed it
// meanwhile makes it fail.
func putPolicy(c *cobra.Command, client *api.Client, p *policy.Policy) (api.PolicyResource, error) {
	path := api.Prefix + "/policies/" + escape(p.Name())
	var r api.PolicyResource
	condition := api.IfNoneMatch("*")
	var tag string
	err := client.Get(c.Context(), path, &r, api.ETag(&tag))
	var problem *api.Problem
	switch {
	case err == nil:
		condition = api.IfMatch(tag)
	case !errors.As(err, &problem) || problem.Status != 404:
		return r, err
	}
	err = client.Put(c.Context(), path, p, &r, condition)
	return r, err
}

func (a *app) policyGet() *cobra.Command {
	return &cobra.Command{
		Use: "get [NAME]", Short: "Show the policies, or one of them", Args: cobra.MaximumNArgs(1),
		Example: `  lazaret policy get
  lazaret policy get default -o yaml`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				if len(args) == 1 {
					var r api.PolicyResource
					if err := client.Get(c.Context(), api.Prefix+"/policies/"+escape(args[0]), &r); err != nil {
						return err
					}
					return a.print(r.Resource, func(w *output.Writer) { a.drawResource(w, r.Resource) })
				}
				list, err := collect[api.PolicyResource](c.Context(), client, api.Prefix+"/policies", 0)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) { drawPolicies(w, list) })
			})
		},
	}
}

// resource reads a policy for display; what cannot be read shows as empty.
func resource(b json.RawMessage) policy.Policy {
	if ps, err := policy.Parse(bytes.NewReader(b)); err == nil && len(ps) == 1 {
		return ps[0]
	}
	return policy.Policy{}
}

func (a *app) drawResource(w *output.Writer, b json.RawMessage) {
	var buf bytes.Buffer
	if err := output.Print(&buf, output.YAML, b, nil); err != nil {
		w.Line("%s", b)
		return
	}
	for _, line := range bytes.Split(bytes.TrimRight(buf.Bytes(), "\n"), []byte("\n")) {
		w.Line("%s", line)
	}
}

func (a *app) policyHistory() *cobra.Command {
	return &cobra.Command{
		Use: "history NAME", Short: "List a policy's versions, newest first", Args: cobra.ExactArgs(1),
		Example: `  lazaret policy history web
  lazaret policy history web -o json | jq '.[1].resource' | lazaret policy apply -f -`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				list, err := collect[api.PolicyResource](c.Context(), client, api.Prefix+"/policies/"+escape(args[0])+"/history", 0)
				if err != nil {
					return err
				}
				return a.print(list, func(w *output.Writer) { drawPolicies(w, list) })
			})
		},
	}
}

func drawPolicies(w *output.Writer, list []api.PolicyResource) {
	w.Row("NAME", "MODE", "PRIORITY", "VERSION", "UPDATED", "BY")
	for _, r := range list {
		p := resource(r.Resource)
		w.Row(r.Name, p.Spec.Mode, p.Spec.Priority, r.Version, short(r.Updated), r.By)
	}
}

func (a *app) policyDelete() *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a policy; its workloads fall to the next that selects them", Args: cobra.ExactArgs(1),
		Example: `  lazaret policy delete web`,
		RunE: func(c *cobra.Command, args []string) error {
			return a.withClient(func(client *api.Client) error {
				var tag string
				path := api.Prefix + "/policies/" + escape(args[0])
				if err := client.Get(c.Context(), path, nil, api.ETag(&tag)); err != nil {
					return err
				}
				if err := client.Delete(c.Context(), path, api.IfMatch(tag)); err != nil {
					return err
				}
				a.say("policy %s deleted", args[0])
				return nil
			})
		},
	}
}

func (a *app) policyExplain() *cobra.Command {
	var finding string
	c := &cobra.Command{
		Use: "explain [WORKLOAD]", Short: "Say which policy a workload or a finding got, and why", Args: cobra.MaximumNArgs(1),
		Example: `  lazaret policy explain web-1
  lazaret policy explain --finding 01JD5Z4M8K3V9Q2W7X6C1B0N5A`,
		RunE: func(c *cobra.Command, args []string) error {
			if (len(args) == 1) == (finding != "") {
				return usageError{errors.New("name a workload or --finding")}
			}
			workload := ""
			if len(args) == 1 {
				workload = args[0]
			}
			return a.withClient(func(client *api.Client) error {
				var e api.PolicyExplanation
				if err := client.Get(c.Context(), api.Prefix+"/explanation", &e,
					api.Query("workload", workload), api.Query("finding", finding)); err != nil {
					return err
				}
				return a.print(e, func(w *output.Writer) {
					w.Line("%s (%s) gets policy %s", name(e.Workload), e.Workload.ID, e.Policy)
					w.Row("POLICY", "PRIORITY", "SELECTS", "APPLIES", "WHY")
					for _, s := range e.Considered {
						w.Row(s.Policy, s.Priority, yes(s.Selected), yes(s.Applies), s.Why)
					}
				})
			})
		},
	}
	c.Flags().StringVar(&finding, "finding", "", "explain a finding instead")
	return c
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
