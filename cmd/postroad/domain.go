package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) domainCommands() *cobra.Command {
	return a.group("domain", "the domains whose mail ends here", a.domainAdd(), a.domainList(), a.domainRemove())
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
			return a.show(d, func(w io.Writer) { fmt.Fprintf(w, "added %s\n", clean(d.Name)) })
		}),
	}.cobra()
}

func (a *app) domainList() *cobra.Command {
	return command{
		use: "list", short: "list the domains", args: cobra.NoArgs, example: "postroad domain list\npostroad domain list --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			domains, err := svc.Domains(ctx)
			return list(a, each(domains, err), []string{"DOMAIN", "ACCOUNTS", "ALIASES", "CREATED"}, func(t *table, d control.Domain) {
				t.row(d.Name, d.Accounts, d.Aliases, when(d.Created))
			}, "no domains; `postroad domain add` makes one")
		}),
	}.cobra()
}

func (a *app) domainRemove() *cobra.Command {
	return command{
		use: "remove DOMAIN", short: "remove a domain that has no accounts and aliases", args: cobra.ExactArgs(1),
		example: "postroad domain remove example.org", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.RemoveDomain(ctx, args[0]); err != nil {
				return err
			}
			return a.did("removed", args[0])
		}),
	}.cobra()
}
