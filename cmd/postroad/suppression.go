package main

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) suppressionCommands() *cobra.Command {
	return a.group("suppression", "addresses that an account's mail is not sent to",
		a.suppressionList(), a.suppressionAdd(), a.suppressionRemove())
}

func (a *app) suppressionList() *cobra.Command {
	return command{
		use: "list [ACCOUNT]", short: "list addresses that an account's mail is not sent to", args: cobra.MaximumNArgs(1),
		long: `List addresses that an account's mail is not sent to, or that no account's is: mostly those
whose servers have said that there is no such mailbox. Mail to them is returned at once.`,
		complete: a.completing(false, accountNames), example: "postroad suppression list\npostroad suppression list ann@example.org --json",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			heads := []string{"ACCOUNT", "ADDRESS", "SINCE", "UNTIL", "BY", "WHY"}
			return list(a, svc.Suppressions(ctx, argument(args, 0)), heads, func(t *table, s control.Suppression) {
				t.row(s.Account, s.Address, when(s.Since), cmp.Or(until(s.Until), "removed"), cmp.Or(s.By, "delivery"), cmp.Or(brief(s.Reply, 80), "-"))
			}, "no address is suppressed")
		}),
	}.cobra()
}

// argument returns an argument that may be missing.
func argument(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

func (a *app) suppressionAdd() *cobra.Command {
	var term, reason string
	cmd := command{
		use: "add ACCOUNT ADDRESS", short: "return an account's mail to an address at once", args: cobra.ExactArgs(2),
		complete: a.completing(false, accountNames, nothing),
		example: `postroad suppression add ann@example.org bob@example.net --reason unsubscribed
postroad suppression add ann@example.org bob@example.net --for 30d`,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			d, err := parseTerm(term)
			if err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				n := control.NewSuppression{Account: args[0], Address: args[1], For: control.Seconds(d), Reason: reason}
				s, err := svc.AddSuppression(ctx, n)
				if err != nil {
					return err
				}
				return a.show(s, func(w io.Writer) {
					fmt.Fprintf(w, "suppressed %s for %s until %s\n", clean(s.Address), clean(s.Account), cmp.Or(until(s.Until), "it is removed"))
				})
			})
		},
	}.cobra()
	cmd.Flags().StringVar(&term, "for", "", "how long, as in 12h or 30d (default: until it is removed)")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the account's owner to read")
	return cmd
}

func (a *app) suppressionRemove() *cobra.Command {
	return command{
		use: "remove ACCOUNT ADDRESS", short: "send an account's mail to an address again", args: cobra.ExactArgs(2),
		complete: a.completing(false, accountNames, suppressedNames), example: "postroad suppression remove ann@example.org bob@example.net",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.RemoveSuppression(ctx, control.Suppression{Account: args[0], Address: args[1]}); err != nil {
				return err
			}
			return a.did("removed", args[1])
		}),
	}.cobra()
}
