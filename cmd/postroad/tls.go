package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) tlsCommands() *cobra.Command {
	return a.group("tls", "the TLS of other servers, and reports about it", a.tlsList(), a.tlsShow(), a.tlsForget(), a.tlsReport(), a.tlsReports(), a.tlsRecord())
}

func (a *app) tlsList() *cobra.Command {
	return command{
		use: "list", short: "list domains of whose TLS something is known", args: cobra.NoArgs,
		long: `List domains of whose TLS something is known: the MTA-STS policy that they publish, and
how long their mail hosts have always shown a good certificate. A domain that always did and
does not any more is "changed": its mail waits.`,
		example: "postroad tls list\npostroad tls list --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			return list(a, svc.TLSDomains(ctx), []string{"DOMAIN", "MTA-STS", "EXPIRES", "GOOD SINCE", "STATE"}, func(t *table, v control.DomainTLS) {
				mode, expires, since := "-", "-", "-"
				if v.MTASTS != nil {
					mode, expires = v.MTASTS.Mode, when(v.MTASTS.Expires)
				}
				if v.Memory != nil {
					since = when(v.Memory.Since)
				}
				t.row(v.Domain, mode, expires, since, tlsState(v))
			}, "nothing is known yet")
		}),
	}.cobra()
}

// tlsState is what an administrator should know at once.
func tlsState(v control.DomainTLS) string {
	var states []string
	if v.Memory != nil && !v.Memory.Failing.IsZero() {
		states = append(states, "changed; mail waits until "+when(v.Memory.Until))
	}
	if v.MTASTS != nil && v.MTASTS.Trouble != "" {
		states = append(states, "its policy cannot be refreshed")
	}
	return cmp.Or(strings.Join(states, "; "), "-")
}

func (a *app) tlsShow() *cobra.Command {
	return command{
		use: "show DOMAIN", short: "show what is known of a domain's TLS", args: cobra.ExactArgs(1),
		long: `Show what is known of a domain's TLS, without asking anybody. "postroad probe" looks at
how it is now, TLSA records too.`,
		example: "postroad tls show example.org", complete: a.completing(false, tlsDomains),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			v, err := svc.TLSDomain(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(v, func(w io.Writer) { showTLS(w, v) })
		}),
	}.cobra()
}

func showTLS(w io.Writer, v control.DomainTLS) {
	line := func(name, text string) {
		if text != "" {
			fmt.Fprintf(w, "%-12s %s\n", name, clean(text))
		}
	}
	line("domain", v.Domain)
	if p := v.MTASTS; p != nil {
		line("mta-sts", p.Mode)
		line("id", p.ID)
		line("mail hosts", strings.Join(p.Hosts, " "))
		line("fetched", when(p.Fetched))
		line("expires", when(p.Expires))
		line("trouble", p.Trouble)
	}
	if m := v.Memory; m != nil {
		line("good since", fmt.Sprintf("%s, in %s, last %s", when(m.Since), count(m.Sessions, "session"), when(m.Last)))
		line("", map[bool]string{true: "a change is a reason for mail to wait", false: "not long enough for a change to be odd"}[m.Established])
		line("changed", until(m.Failing))
		line("", m.Trouble)
		line("mail waits", until(m.Until))
	}
}

func (a *app) tlsForget() *cobra.Command {
	return command{
		use: "forget DOMAIN", short: "forget what is known of a domain's TLS", args: cobra.ExactArgs(1),
		long: `Forget what is known of a domain's TLS: its MTA-STS policy, which the next mail asks for
again, and that it always showed a good certificate. Mail that waits for that goes with its
next attempt; "postroad queue retry --domain DOMAIN" makes that now.`,
		example: "postroad tls forget example.org", complete: a.completing(false, tlsDomains),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.ForgetTLS(ctx, args[0]); err != nil {
				return err
			}
			return a.did("forgotten", args[0])
		}),
	}.cobra()
}
