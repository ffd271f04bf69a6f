package main

import (
	"cmp"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) certCommands() *cobra.Command {
	return a.group("cert", "the certificates that the server shows", a.certList(), a.certRenew())
}

func (a *app) certList() *cobra.Command {
	return command{
		use: "list", short: "list the certificates that the running server shows", args: cobra.NoArgs,
		long: `List the certificates that the running server shows. The first that is there goes to
clients that ask for none of the names. TROUBLE is why there is no newer one, when there
should be.`,
		example: "postroad cert list\npostroad cert list --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			heads := []string{"NAMES", "UNTIL", "ISSUER", "SOURCE", "TROUBLE"}
			return list(a, svc.Certificates(ctx), heads, func(t *table, c control.Certificate) {
				t.row(strings.Join(c.Names, " "), when(c.Until), cmp.Or(c.Issuer, "-"), c.Source, cmp.Or(c.Trouble, "-"))
			}, "no certificates")
		}),
	}.cobra()
}

func (a *app) certRenew() *cobra.Command {
	return command{
		use: "renew NAME", short: "obtain another certificate by ACME now", args: cobra.ExactArgs(1),
		long: `Obtain another certificate by ACME for a name, whether or not it is time, and wait for
it. It is shown at once. The server renews by itself; this is for when a key was lost, or
when what kept it from obtaining one was mended.`,
		example: "postroad cert renew mail.example.org", complete: a.completing(false, obtainedNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			err := a.during("asking for a certificate", func() error { return svc.RenewCertificate(ctx, args[0]) })
			if err != nil {
				return err
			}
			return a.did("renewed", args[0])
		}),
	}.cobra()
}
