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

func (a *app) destinationCommands() *cobra.Command {
	return a.group("destination", "where mail goes, and what is known of it",
		a.destinationList(), a.destinationShow(), a.destinationSuspend(), a.destinationResume(), a.destinationForget())
}

func (a *app) destinationList() *cobra.Command {
	return command{
		use: "list", short: "list destinations that are in use, in trouble or suspended", args: cobra.NoArgs,
		long: `List destinations that are in use, in trouble or suspended. A destination is a domain
whose mail goes to the hosts that DNS names, or a route. DUE are the recipients whose turn
comes as soon as the destination takes more; "postroad queue list --destination" has all.
Without a running server only those that are suspended are known.`,
		example: "postroad destination list\npostroad destination list --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			heads := []string{"DESTINATION", "STATE", "DUE", "ACTIVE", "LIMIT", "LAST REPLY"}
			return list(a, svc.Destinations(ctx, ""), heads, func(t *table, d control.Destination) {
				t.row(d.Name, destinationState(d), d.Waiting, d.Active, d.Limit, cmp.Or(brief(cmp.Or(d.Reason, d.Reply), 60), "-"))
			}, "nothing is known of any destination")
		}),
	}.cobra()
}

// destinationState is a word for how a destination is.
func destinationState(d control.Destination) string {
	switch {
	case !d.Suspended.IsZero():
		return "suspended"
	case !d.DeadSince.IsZero():
		return "unreachable"
	case d.Active > 0 || d.Waiting > 0:
		return "busy"
	}
	return "idle"
}

// destinationWords tell what is known of a destination.
func destinationWords(d control.Destination) (words []string) {
	for _, w := range append([]string{
		ifAny(!d.Suspended.IsZero(), fmt.Sprintf("suspended since %s by %s%s", when(d.Suspended), d.SuspendedBy, ifAny(d.Reason != "", ": "+d.Reason))),
		ifAny(!d.DeadSince.IsZero(), "no host could be reached since "+when(d.DeadSince)+"; "+probeWords(d)),
		ifAny(d.Reply != "", "last reply"+ifAny(!d.ReplyAt.IsZero(), ", at "+when(d.ReplyAt))+": "+d.Reply),
		ifAny(d.Limit > 0, fmt.Sprintf("%s under way, of %d at most now; %s for their turn; %s open and idle",
			count(d.Active, "attempt"), d.Limit, waits(d.Waiting), count(d.Idle, "connection"))),
		ifAny(d.PerMinute > 0, fmt.Sprintf("%d attempts a minute at most", d.PerMinute)),
		ifAny(!d.Throttled.IsZero(), "its rate lets the next message go at "+when(d.Throttled)),
	}, d.TLS...) {
		if w != "" {
			words = append(words, w)
		}
	}
	if len(words) == 0 {
		words = []string{"nothing is known of it now"}
	}
	return words
}

func probeWords(d control.Destination) string {
	if d.Probing {
		return "one recipient tries now whether it lives"
	}
	return "one recipient tries whether it lives at " + when(d.DeadUntil)
}

func waits(n int) string {
	if n == 1 {
		return "1 recipient waits"
	}
	return count(n, "recipient") + " wait"
}

// wrapped writes text in lines of a terminal's width, each after an indent.
func wrapped(w io.Writer, indent, text string) {
	const width = 100
	line := indent
	for word := range strings.FieldsSeq(text) {
		if len(line)+1+len(word) > width && strings.TrimSpace(line) != "" {
			fmt.Fprintln(w, line)
			line = indent + "  "
		}
		if strings.TrimSpace(line) != "" {
			line += " "
		}
		line += word
	}
	fmt.Fprintln(w, line)
}

func (a *app) destinationShow() *cobra.Command {
	return command{
		use: "show DOMAIN|ROUTE", short: "tell what is known of a destination", args: cobra.ExactArgs(1),
		complete: a.completing(false, destinationNames), example: "postroad destination show example.net",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			known := false
			for d, err := range svc.Destinations(ctx, args[0]) {
				if err != nil {
					return err
				}
				known = true
				if err := a.show(d, func(w io.Writer) { showDestination(w, d) }); err != nil {
					return err
				}
			}
			if !known && !a.json {
				fmt.Fprintf(a.out, "nothing is known of %s now\n", clean(args[0]))
			}
			return nil
		}),
	}.cobra()
}

func showDestination(w io.Writer, d control.Destination) {
	fmt.Fprintln(w, clean(d.Name))
	for _, words := range destinationWords(d) {
		wrapped(w, "  ", clean(words))
	}
}

func (a *app) destinationSuspend() *cobra.Command {
	var reason string
	cmd := command{
		use: "suspend DOMAIN|ROUTE", short: "stop all attempts at a destination until it is resumed", args: cobra.ExactArgs(1),
		long: `Stop all attempts at a destination until it is resumed. Attempts that are under way go
on. Its mail waits, and is neither returned nor reported as late meanwhile; it stays so
when the server is restarted.`,
		complete: a.completing(false, destinationNames),
		example:  "postroad destination suspend example.net --reason moving",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			d, err := svc.SuspendDestination(ctx, control.SuspendDestination{Name: args[0], Reason: reason})
			if err != nil {
				return err
			}
			return a.show(d, func(w io.Writer) { fmt.Fprintf(w, "suspended %s\n", clean(d.Name)) })
		}),
	}.cobra()
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who look at the queue")
	return cmd
}

func (a *app) destinationResume() *cobra.Command {
	return command{
		use: "resume DOMAIN|ROUTE", short: "let mail go to a destination again, now", args: cobra.ExactArgs(1),
		long: `Let mail go to a destination again. What waits for it is due now, and goes in the order
in which it arrived, over as many connections as the destination is given otherwise.`,
		complete: a.completing(false, suspendedNames), example: "postroad destination resume example.net",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			c, err := svc.ResumeDestination(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(c, func(w io.Writer) {
				fmt.Fprintf(w, "resumed %s; due now: %s\n", clean(args[0]), count(c.Recipients, "recipient"))
			})
		}),
	}.cobra()
}

func (a *app) destinationForget() *cobra.Command {
	return command{
		use: "forget DOMAIN|ROUTE", short: "forget what was learned of a destination, and try it anew", args: cobra.ExactArgs(1),
		long: `Forget what a running server has learned of a destination: that it could not be reached,
and how many connections it takes. Its mail is due now.`,
		complete: a.completing(false, destinationNames), example: "postroad destination forget example.net",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.ForgetDestination(ctx, args[0]); err != nil {
				return err
			}
			return a.did("forgot", args[0])
		}),
	}.cobra()
}
