package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/config"
	"postroad/internal/control"
)

func (a *app) appPasswordCommands() *cobra.Command {
	return a.group("app-password", "further passwords of an account, one for each program or device",
		a.appPasswordAdd(), a.appPasswordList(), a.appPasswordRevoke())
}

func (a *app) appPasswordAdd() *cobra.Command {
	var expires string
	n := control.NewAppPassword{}
	cmd := command{
		use: "add ADDRESS NAME", short: "make an app password and print it, this once", args: cobra.ExactArgs(2),
		long: `Make an app password and print it, this once. It logs in like the account's own
password, for the protocols that it is for, until it expires or is revoked. Nobody can
guess it: it works also while the account's own password is refused to strangers
because others try to guess that.`,
		example: `postroad account app-password add alice@example.test phone
postroad account app-password add alice@example.test newsletter --for smtp --expires 90d`,
		complete: a.completing(false, accountNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if expires != "" {
				lifetime, err := config.ParseDuration(expires)
				if err != nil {
					return usagef("expires: %v", err)
				}
				n.Lifetime = control.Seconds(lifetime)
			}
			n.Address, n.Name = args[0], args[1]
			made, err := svc.AddAppPassword(ctx, n)
			if err != nil {
				return err
			}
			return a.show(made, func(w io.Writer) { showMadeAppPassword(w, args[0], made) })
		}),
	}.cobra()
	cmd.Flags().StringSliceVar(&n.Protocols, "for", nil, "the protocols that it is for: smtp, imap (default both)")
	cmd.Flags().StringVar(&expires, "expires", "", "how long it works, as in 90d; 0 is for ever")
	return cmd
}

func showMadeAppPassword(w io.Writer, address string, made control.MadeAppPassword) {
	fmt.Fprintf(w, "added %s to %s, for %s", clean(made.Name), clean(address), strings.Join(made.Protocols, " and "))
	if !made.Expires.IsZero() {
		fmt.Fprintf(w, ", until %s", when(made.Expires))
	}
	fmt.Fprintf(w, "\npassword: %s\n", made.Password)
}

func (a *app) appPasswordList() *cobra.Command {
	return command{
		use: "list ADDRESS", short: "list an account's app passwords and when they were last used", args: cobra.ExactArgs(1),
		example: "postroad account app-password list alice@example.test", complete: a.completing(false, accountNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			apps, err := svc.AppPasswords(ctx, args[0])
			heads := []string{"NAME", "FOR", "CREATED", "EXPIRES", "LAST USED", "FROM"}
			return list(a, each(apps, err), heads, func(t *table, v control.AppPassword) {
				t.row(v.Name, strings.Join(v.Protocols, ","), when(v.Created), showExpiry(v), when(v.Used), showUsedFrom(v))
			}, "no app passwords; `postroad account app-password add` makes one")
		}),
	}.cobra()
}

func showExpiry(v control.AppPassword) string {
	if v.Expired {
		return "expired"
	}
	return when(v.Expires)
}

func showUsedFrom(v control.AppPassword) string {
	if v.Used.IsZero() {
		return "-"
	}
	return v.UsedFrom + " (" + v.UsedFor + ")"
}

func (a *app) appPasswordRevoke() *cobra.Command {
	return command{
		use: "revoke ADDRESS NAME", short: "take an app password back, and end the account's sessions", args: cobra.ExactArgs(2),
		example: "postroad account app-password revoke alice@example.test phone", complete: a.completing(false, accountNames, appPasswordNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.RevokeAppPassword(ctx, control.AppPasswordName{Address: args[0], Name: args[1]}); err != nil {
				return err
			}
			return a.did("revoked", args[1])
		}),
	}.cobra()
}

// appPasswordNames lists the app passwords of the account that is the first argument.
func appPasswordNames(ctx context.Context, svc control.Service, args []string, add func(string) bool) error {
	list, err := svc.AppPasswords(ctx, args[0])
	for _, v := range list {
		add(v.Name)
	}
	return err
}
