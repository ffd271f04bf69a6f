package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) accountForward() *cobra.Command {
	return a.group("forward", "accounts that send their mail on", a.forwardAdd(), a.forwardList(), a.forwardRemove())
}

func (a *app) forwardAdd() *cobra.Command {
	var keep bool
	var cmd *cobra.Command
	cmd = command{
		use: "add ADDRESS TARGET...", short: "send an account's mail on to others", args: cobra.MinimumNArgs(2),
		long: `Send an account's mail on to others, here or elsewhere, in addition to those that get
it already. Without --keep the account's own mailboxes get none of it. The account may
log in and send as before.`,
		example: `postroad account forward add alice@example.org alice@example.net
postroad account forward add alice@example.org bob@example.org --keep`,
		complete: a.completing(true, accountNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			f := control.Forward{Account: args[0], Targets: args[1:]}
			if cmd.Flags().Changed("keep") {
				f.Keep = &keep
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				f, err := svc.AddForward(ctx, f)
				return a.showForward(f, err)
			})
		},
	}.cobra()
	cmd.Flags().BoolVar(&keep, "keep", false, "the account gets a copy, too (--keep=false takes that back)")
	return cmd
}

func (a *app) showForward(f control.Forward, err error) error {
	if err != nil {
		return err
	}
	return a.show(f, func(w io.Writer) {
		if len(f.Targets) == 0 {
			fmt.Fprintf(w, "%s forwards nothing\n", clean(f.Account))
			return
		}
		fmt.Fprintf(w, "%s forwards to %s and keeps %s\n", clean(f.Account), clean(strings.Join(f.Targets, ", ")), copies(f))
	})
}

// forwardOf returns where an account sends its mail on; nil is nowhere.
func forwardOf(ctx context.Context, svc control.Service, account string) (*control.Forward, error) {
	for f, err := range svc.Forwards(ctx, account[strings.LastIndexByte(account, '@')+1:]) {
		if err != nil || f.Account == account {
			return &f, err
		}
	}
	return nil, nil
}

// copies says what an account that sends its mail on keeps of it.
func copies(f control.Forward) string {
	if f.Keep != nil && *f.Keep {
		return "a copy"
	}
	return "none"
}

func (a *app) forwardList() *cobra.Command {
	return command{
		use: "list [DOMAIN]", short: "list accounts that send their mail on", args: cobra.MaximumNArgs(1),
		example: "postroad account forward list", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			return list(a, svc.Forwards(ctx, first(args)), []string{"ACCOUNT", "TARGETS", "KEEPS"}, func(t *table, f control.Forward) {
				t.row(f.Account, strings.Join(f.Targets, ", "), copies(f))
			}, "no account forwards its mail")
		}),
	}.cobra()
}

func (a *app) forwardRemove() *cobra.Command {
	return command{
		use: "remove ADDRESS [TARGET...]", short: "send an account's mail no longer on, or not to some", args: cobra.MinimumNArgs(1),
		example:  "postroad account forward remove alice@example.org\npostroad account forward remove alice@example.org bob@example.org",
		complete: a.completing(false, forwardNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			f, err := svc.RemoveForward(ctx, control.Forward{Account: args[0], Targets: args[1:]})
			return a.showForward(f, err)
		}),
	}.cobra()
}

func (a *app) accountDelegate() *cobra.Command {
	return a.group("delegate", "who may send as an address that is not its own", a.delegateAdd(), a.delegateList(), a.delegateRemove())
}

func (a *app) delegateAdd() *cobra.Command {
	return command{
		use: "add ADDRESS ACCOUNT", short: "let an account send as an address that is not its own", args: cobra.ExactArgs(2),
		long: `Let an account send as an address that is not its own: another account's, one where
nothing is, or @example.org for all of a domain. Its mail stays where it is.`,
		example: `postroad account delegate add boss@example.org secretary@example.org
postroad account delegate add noreply@example.org shop@example.org
postroad account delegate add @example.org newsletter@example.org`,
		complete: a.completing(false, accountNames, accountNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			d, err := svc.Delegate(ctx, control.Delegation{As: args[0], Delegate: args[1]})
			if err != nil {
				return err
			}
			return a.show(d, func(w io.Writer) { fmt.Fprintf(w, "%s may send as %s\n", clean(d.Delegate), clean(d.As)) })
		}),
	}.cobra()
}

func (a *app) delegateList() *cobra.Command {
	return command{
		use: "list", short: "list who may send as an address that is not its own", args: cobra.NoArgs,
		example: "postroad account delegate list",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			return list(a, svc.Delegations(ctx), []string{"AS", "ACCOUNT"}, func(t *table, d control.Delegation) {
				t.row(d.As, d.Delegate)
			}, "nobody sends as another")
		}),
	}.cobra()
}

func (a *app) delegateRemove() *cobra.Command {
	return command{
		use: "remove ADDRESS ACCOUNT", short: "let an account no longer send as an address", args: cobra.ExactArgs(2),
		example:  "postroad account delegate remove boss@example.org secretary@example.org",
		complete: a.completing(false, delegationNames, delegateNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.Undelegate(ctx, control.Delegation{As: args[0], Delegate: args[1]}); err != nil {
				return err
			}
			return a.did("removed", args[0]+" "+args[1])
		}),
	}.cobra()
}
