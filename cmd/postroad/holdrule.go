package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) holdRuleCommands() *cobra.Command {
	return a.group("hold-rule", "rules by which new mail is put on hold", a.holdRuleAdd(), a.holdRuleList(), a.holdRuleRemove())
}

func (a *app) holdRuleAdd() *cobra.Command {
	var rule control.HoldRule
	var from, to string
	cmd := command{
		use: "add", short: "put new mail on hold that matches", args: cobra.NoArgs,
		long: `Put recipients of new mail on hold, before the first attempt, when all that is given here
matches: mail for accounts of this server too. "postroad queue release" lets them go, and
then no rule catches them again. What waits already is for "postroad queue hold".`,
		example: `postroad hold-rule add --account ann@example.org --reason stolen
postroad hold-rule add --from-domain example.net --to-domain example.org
postroad hold-rule add --sender '<>' --recipient list@example.org`,
		run: func(ctx context.Context, _ *cobra.Command, _ []string) error {
			var err error
			if rule.Sender, err = oneWay("sender", rule.Sender, "from-domain", from); err != nil {
				return err
			}
			if rule.Recipient, err = oneWay("recipient", rule.Recipient, "to-domain", to); err != nil {
				return err
			}
			if rule.Sender == "" && rule.Recipient == "" && rule.Account == "" {
				return usagef("say which mail: --sender, --from-domain, --recipient, --to-domain or --account")
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				h, err := svc.AddHoldRule(ctx, rule)
				if err != nil {
					return err
				}
				return a.show(h, func(w io.Writer) { fmt.Fprintf(w, "made hold rule %d\n", h.Number) })
			})
		},
	}.cobra()
	f := cmd.Flags()
	f.StringVar(&rule.Sender, "sender", "", "from this sender: an address, @domain, or <> for reports")
	f.StringVar(&from, "from-domain", "", "from senders in this domain")
	f.StringVar(&rule.Recipient, "recipient", "", "for this recipient: an address or @domain")
	f.StringVar(&to, "to-domain", "", "for recipients in this domain")
	f.StringVar(&rule.Account, "account", "", "that this account sends")
	f.StringVar(&rule.Reason, "reason", "", "why, for those who look at the queue")
	return cmd
}

// oneWay reads a pattern that may be given as such, or as a domain.
func oneWay(flag, pattern, domainFlag, domain string) (string, error) {
	switch {
	case domain == "":
		return pattern, nil
	case pattern != "":
		return "", usagef("--%s and --%s are both given; one is enough", flag, domainFlag)
	}
	return "@" + domain, nil
}

func (a *app) holdRuleList() *cobra.Command {
	return command{
		use: "list", short: "list the rules", args: cobra.NoArgs, example: "postroad hold-rule list",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			heads := []string{"RULE", "SENDER", "RECIPIENT", "ACCOUNT", "SINCE", "BY", "REASON"}
			return list(a, svc.HoldRules(ctx), heads, func(t *table, h control.HoldRule) {
				t.row(h.Number, cmp.Or(h.Sender, "any"), cmp.Or(h.Recipient, "any"), cmp.Or(h.Account, "any"), when(h.Since), h.By, cmp.Or(h.Reason, "-"))
			}, "there are no hold rules")
		}),
	}.cobra()
}

func (a *app) holdRuleRemove() *cobra.Command {
	return command{
		use: "remove NUMBER", short: "remove a rule; what it holds stays on hold", args: cobra.ExactArgs(1),
		complete: a.completing(false, holdRuleNumbers), example: "postroad hold-rule remove 3",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			number, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil {
				return usagef("%q is not the number of a rule; see postroad hold-rule list", args[0])
			}
			if err := svc.RemoveHoldRule(ctx, number); err != nil {
				return err
			}
			return a.did("removed", "hold rule "+args[0])
		}),
	}.cobra()
}
