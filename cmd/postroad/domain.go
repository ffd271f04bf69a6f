package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) domainCommands() *cobra.Command {
	return a.group("domain", "the domains whose mail ends here", a.domainAdd(), a.domainList(), a.domainRemove(), a.domainAliasCommands())
}

func (a *app) domainAdd() *cobra.Command {
	return command{
		use: "add DOMAIN", short: "let mail for a domain end here", args: cobra.ExactArgs(1),
		example: "postroad domain add example.org",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			d, err := svc.AddDomain(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(d, func(w io.Writer) {
				fmt.Fprintf(w, "added %s\nits mail is not signed yet: postroad dkim add %s\n", clean(d.Name), clean(d.Name))
			})
		}),
	}.cobra()
}

func (a *app) domainList() *cobra.Command {
	return command{
		use: "list", short: "list the domains", args: cobra.NoArgs, example: "postroad domain list\npostroad domain list --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			domains, err := svc.Domains(ctx)
			return list(a, each(domains, err), []string{"DOMAIN", "ACCOUNTS", "ALIASES", "LISTS", "ALIAS OF", "CREATED"}, func(t *table, d control.Domain) {
				t.row(d.Name, d.Accounts, d.Aliases, d.Lists, cmp.Or(d.Alias, "-"), when(d.Created))
			}, "no domains; `postroad domain add` makes one")
		}),
	}.cobra()
}

func (a *app) domainRemove() *cobra.Command {
	return command{
		use: "remove DOMAIN", short: "remove a domain that has no accounts, aliases and lists", args: cobra.ExactArgs(1),
		example: "postroad domain remove example.org", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.RemoveDomain(ctx, args[0]); err != nil {
				return err
			}
			return a.did("removed", args[0])
		}),
	}.cobra()
}

func (a *app) domainAliasCommands() *cobra.Command {
	return a.group("alias", "domains that are another name of one of ours", a.domainAliasAdd(), a.domainAliasList(), a.domainAliasRemove())
}

func (a *app) domainAliasAdd() *cobra.Command {
	return command{
		use: "add ALIAS DOMAIN", short: "make a domain another name of one of ours", args: cobra.ExactArgs(2),
		long: `Make a domain another name of one of ours: mail for anybody in it goes to whom the
same local part names in the other, and who may send as an address there may do so here.`,
		example: "postroad domain alias add example.net example.org", complete: a.completing(false, nothing, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			d, err := svc.AliasDomain(ctx, control.DomainAlias{Name: args[0], Of: args[1]})
			if err != nil {
				return err
			}
			return a.show(d, func(w io.Writer) { fmt.Fprintf(w, "%s is an alias of %s\n", clean(d.Name), clean(d.Alias)) })
		}),
	}.cobra()
}

func (a *app) domainAliasList() *cobra.Command {
	return command{
		use: "list", short: "list the domains that are another name of one of ours", args: cobra.NoArgs, example: "postroad domain alias list",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			domains, err := svc.Domains(ctx)
			domains = slices.DeleteFunc(domains, func(d control.Domain) bool { return d.Alias == "" })
			return list(a, each(domains, err), []string{"DOMAIN", "ALIAS OF"}, func(t *table, d control.Domain) {
				t.row(d.Name, d.Alias)
			}, "no domain aliases")
		}),
	}.cobra()
}

func (a *app) domainAliasRemove() *cobra.Command {
	return command{
		use: "remove ALIAS", short: "remove a domain that is another name of one of ours", args: cobra.ExactArgs(1),
		example: "postroad domain alias remove example.net", complete: a.completing(false, domainAliasNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.RemoveDomainAlias(ctx, args[0]); err != nil {
				return err
			}
			return a.did("removed", args[0])
		}),
	}.cobra()
}
