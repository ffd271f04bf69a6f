package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) aliasCommands() *cobra.Command {
	return a.group("alias", "addresses whose mail goes elsewhere", a.aliasAdd(), a.aliasList(), a.aliasRemove())
}

func (a *app) aliasAdd() *cobra.Command {
	return command{
		use: "add ADDRESS TARGET...", short: "send mail for an address to others", args: cobra.MinimumNArgs(2),
		long: `Send mail for an address to others, here or elsewhere. An alias that is there
already gets the targets in addition. The address @example.org catches what has no
account or alias of its own in the domain. A target here may be made later: until then
its mail is refused, and you are told.`,
		example: `postroad alias add info@example.org alice@example.org bob@example.net
postroad alias add @example.org alice@example.org`,
		complete: a.completing(true, aliasNames, accountNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			al, err := svc.AddAlias(ctx, control.Alias{Address: args[0], Targets: args[1:]})
			if err != nil {
				return err
			}
			for _, target := range al.Nowhere {
				fmt.Fprintf(a.err, "note: %s does not exist yet; mail that would go there alone is refused\n", clean(target))
			}
			return a.show(al, func(w io.Writer) {
				fmt.Fprintf(w, "%s goes to %s\n", clean(al.Address), clean(strings.Join(al.Targets, ", ")))
			})
		}),
	}.cobra()
}

func (a *app) aliasList() *cobra.Command {
	return command{
		use: "list [DOMAIN]", short: "list aliases", args: cobra.MaximumNArgs(1),
		example: "postroad alias list\npostroad alias list example.org", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			return list(a, svc.Aliases(ctx, first(args)), []string{"ADDRESS", "TARGETS"}, func(t *table, v control.Alias) {
				t.row(v.Address, strings.Join(v.Targets, ", "))
			}, "no aliases")
		}),
	}.cobra()
}

func (a *app) aliasRemove() *cobra.Command {
	return command{
		use: "remove ADDRESS [TARGET...]", short: "remove an alias, or some of its targets", args: cobra.MinimumNArgs(1),
		example:  "postroad alias remove info@example.org\npostroad alias remove info@example.org bob@example.net",
		complete: a.completing(false, aliasNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.RemoveAlias(ctx, control.Alias{Address: args[0], Targets: args[1:]}); err != nil {
				return err
			}
			return a.did("removed", strings.Join(args, " "))
		}),
	}.cobra()
}
