package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/config"
	"postroad/internal/control"
)

func (a *app) banCommands() *cobra.Command {
	return a.group("ban", "addresses and networks that are kept out", a.banAdd(), a.banList(), a.banRemove())
}

func (a *app) banAdd() *cobra.Command {
	var term, reason string
	cmd := command{
		use: "add ADDRESS|NETWORK", short: "keep an address or a network out", args: cobra.ExactArgs(1),
		long: `Keep an address or a network out of SMTP and IMAP, from now on: what it has open is
cut off. An IPv6 address stands for its /64. A network that is banned already is banned
anew. This machine cannot be banned, and networks of trust.networks are let in all the same.`,
		example: `postroad ban add 192.0.2.1
postroad ban add 192.0.2.0/24 --for 7d --reason noise
postroad ban add 2001:db8::1 --for 12h`,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			d, err := parseTerm(term)
			if err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				b, err := svc.AddBan(ctx, control.NewBan{Network: args[0], For: control.Seconds(d), Reason: reason})
				if err != nil {
					return err
				}
				return a.show(b, func(w io.Writer) { fmt.Fprintf(w, "banned %s %s\n", clean(b.Network), showTerm(b)) })
			})
		},
	}.cobra()
	cmd.Flags().StringVar(&term, "for", "", "how long, as in 12h or 7d (default: until it is removed)")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for the list; the banned are not told")
	return cmd
}

// parseTerm reads how long a ban lasts; 0 is until it is removed.
func parseTerm(s string) (time.Duration, error) {
	if s == "" {
		return 0, nil
	}
	d, err := config.ParseDuration(s)
	if err == nil && d <= 0 {
		err = fmt.Errorf("%q is no time at all", s)
	}
	if err != nil {
		return 0, usagef("for: %v", err)
	}
	return d, nil
}

func showTerm(b control.Ban) string {
	if b.Until.IsZero() {
		return "until it is removed"
	}
	return "until " + when(b.Until)
}

func (a *app) banList() *cobra.Command {
	return command{
		use: "list", short: "list bans that hold", args: cobra.NoArgs,
		long: `List bans that hold, those made by hand ("admin") and those that misbehaviour earned
("gate"). TIMES is how often a network has earned one.`,
		example: "postroad ban list\npostroad ban list --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			return list(a, svc.Bans(ctx), []string{"NETWORK", "UNTIL", "BY", "TIMES", "REASON"}, func(t *table, v control.Ban) {
				t.row(v.Network, cmp.Or(until(v.Until), "removed"), v.By, v.Count, cmp.Or(v.Reason, "-"))
			}, "nobody is banned")
		}),
	}.cobra()
}

// until is when, and nothing for never.
func until(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return when(t)
}

func (a *app) banRemove() *cobra.Command {
	return command{
		use: "remove ADDRESS|NETWORK", short: "let an address or a network in again", args: cobra.ExactArgs(1),
		example: "postroad ban remove 192.0.2.1\npostroad ban remove 192.0.2.0/24", complete: a.completing(false, bannedNetworks),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.RemoveBan(ctx, args[0]); err != nil {
				return err
			}
			return a.did("removed", args[0])
		}),
	}.cobra()
}
