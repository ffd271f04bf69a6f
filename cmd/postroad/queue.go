package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/config"
	"postroad/internal/control"
)

func (a *app) queueCommands() *cobra.Command {
	return a.group("queue", "accepted mail that is not settled yet",
		a.queueList(), a.queueShow(), a.queueExplain(), a.queueDump(),
		a.queueOrder(order{verb: "retry", short: "try recipients now", done: "due now", give: control.Service.RetryQueue}),
		a.queueHold(),
		a.queueOrder(order{verb: "release", short: "end a hold", done: "released", give: control.Service.ReleaseQueue}),
		a.queueReroute(), a.queueEdit(), a.queueBounce(),
		a.queueOrder(order{
			verb: "expire", short: "give recipients up now, as if their time had ended; the senders are told", done: "given up",
			give: control.Service.ExpireQueue,
		}),
		a.queueOrder(order{
			verb: "remove", short: "take recipients out for good, without a report to the sender", done: "removed",
			give: control.Service.RemoveQueue,
		}))
}

// queueFlags are the flags that choose recipients.
type queueFlags struct {
	control.QueueFilter
	older, younger string
}

func (f *queueFlags) register(a *app, c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.Sender, "sender", "", "of this sender: an address, @domain, or <> for reports")
	flags.StringVar(&f.Recipient, "recipient", "", "for this recipient: an address or @domain")
	flags.StringVar(&f.Domain, "domain", "", "for recipients in this domain")
	flags.StringVar(&f.Destination, "destination", "", "that go to this destination: a domain by DNS, or a route")
	flags.StringVar(&f.Account, "account", "", "that this account has sent")
	flags.StringVar(&f.State, "state", "", "in this state: active, deferred or hold")
	flags.StringVar(&f.older, "older-than", "", "that arrived longer ago than this, as in 2h or 3d")
	flags.StringVar(&f.younger, "younger-than", "", "that arrived within this time")
	_ = c.RegisterFlagCompletionFunc("account", a.completing(true, accountNames))
	_ = c.RegisterFlagCompletionFunc("destination", a.completing(true, destinationNames))
	_ = c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions([]string{"active", "deferred", "hold"}, cobra.ShellCompDirectiveNoFileComp))
}

// filter reads the flags and ids.
func (f *queueFlags) filter(ids []string) (control.QueueFilter, error) {
	for _, age := range []struct {
		flag, text string
		to         *control.Seconds
	}{{"older-than", f.older, &f.OlderThan}, {"younger-than", f.younger, &f.YoungerThan}} {
		if age.text == "" {
			continue
		}
		d, err := config.ParseDuration(age.text)
		if err != nil {
			return f.QueueFilter, usagef("--%s: %v", age.flag, err)
		}
		*age.to = control.Seconds(d)
	}
	f.IDs = ids
	return f.QueueFilter, nil
}

// chosen reports whether anything was said about which recipients are meant.
func chosen(f control.QueueFilter) bool {
	return len(f.IDs) > 0 || f.Sender+f.Recipient+f.Domain+f.Destination+f.Account+f.State != "" || f.OlderThan > 0 || f.YoungerThan > 0
}

func (a *app) queueList() *cobra.Command {
	var f queueFlags
	cmd := command{
		use: "list [ID...]", short: "list what waits, the oldest first", args: cobra.ArbitraryArgs, complete: a.completing(true, queueIDs),
		example: `postroad queue list
postroad queue list --state deferred --domain example.net --older-than 2h
postroad queue list --sender alice@example.test --json`,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			filter, err := f.filter(args)
			if err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				return list(a, svc.Queue(ctx, filter), []string{"ID", "ARRIVED", "SIZE", "FROM", "ASKED", "TO", "ROUTE", "STATE", "TRIED", "NEXT", "LAST REPLY"}, queueRows, noneWaits(filter))
			})
		},
	}.cobra()
	f.register(a, cmd)
	cmd.Flags().IntVar(&f.Limit, "limit", 0, "list at most so many messages")
	return cmd
}

// noneWaits is what an empty list means.
func noneWaits(f control.QueueFilter) string {
	if chosen(f) {
		return "nothing like that is in the queue"
	}
	return "the queue is empty"
}

// queueRows adds a row for each recipient; what is said once is not repeated.
func queueRows(t *table, e control.QueueEntry) {
	id, arrived, octets, from := e.ID, when(e.Arrived), size(e.Size), e.From
	before := ""
	for _, r := range e.Recipients {
		asked := askedBriefly(e.Asked, r)
		t.row(id, arrived, octets, from, ifAny(asked != before, asked), r.To, cmp.Or(r.Route, "-"), r.State, r.Attempts, when(r.Next), cmp.Or(brief(lastWord(e, r), 60), "-"))
		id, arrived, octets, from, before = "", "", "", "", asked
	}
}

// askedBriefly is what was asked for a recipient that has to do with when it is delivered, and whether.
func askedBriefly(a control.QueueAsked, r control.QueueRecipient) string {
	var words []string
	for _, w := range []string{
		ifAny(a.Priority != 0, fmt.Sprintf("priority %+d", a.Priority)),
		ifAny(!a.Release.IsZero(), "not before "+when(a.Release)),
		ifAny(!a.Deadline.IsZero(), "by "+when(a.Deadline)+ifAny(strings.HasPrefix(a.DeadlineMode, "R"), " or back")),
		ifAny(a.RequireTLS, "TLS"),
		ifAny(a.TLSOptional, "TLS or not"),
		ifAny(!r.ValidSince.IsZero(), "same owner since "+when(r.ValidSince)),
	} {
		if w != "" {
			words = append(words, w)
		}
	}
	return cmp.Or(strings.Join(words, ", "), "-")
}

func (a *app) queueShow() *cobra.Command {
	return command{
		use: "show ID", short: "show one message and its recipients", args: cobra.ExactArgs(1), complete: a.completing(false, queueIDs),
		example: "postroad queue show 01k8q2c4rw7xf",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			e, err := svc.QueueEntry(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(e, func(w io.Writer) { showQueueEntry(w, e) })
		}),
	}.cobra()
}

// lastWord is why it waits when somebody wants it to, else the reply of the last attempt, or why there was none.
func lastWord(e control.QueueEntry, r control.QueueRecipient) string {
	if words := cmp.Or(r.Reason, r.Waits); words != "" {
		return words
	}
	if r.Reply == "" && r.Attempts == 0 && e.Asked.Release.After(time.Now()) {
		return "waits for the release time that the sender asked for"
	}
	return r.Reply
}

func showQueueEntry(w io.Writer, e control.QueueEntry) {
	fields := newTable(w, "id", e.ID)
	for _, f := range append([][2]string{
		{"arrived", fmt.Sprintf("%s (%s ago)", when(e.Arrived), lasting(time.Since(e.Arrived)))},
		{"size", size(e.Size)}, {"from", e.From}, {"message-id", e.MessageID},
		{"protocol", e.Protocol}, {"peer", e.Peer}, {"tls", e.TLS}, {"account", e.Account},
	}, askedFields(e.Asked)...) {
		if f[1] != "" {
			fields.row(f[0], f[1])
		}
	}
	flush(fields)
	fmt.Fprintln(w)
	t := newTable(w, "TO", "ROUTE", "STATE", "ATTEMPTS", "NEXT", "LAST REPLY")
	for _, r := range e.Recipients {
		t.row(r.To, cmp.Or(r.Route, "-"), r.State, r.Attempts, when(r.Next), lastWord(e, r))
	}
	flush(t)
	showWishes(w, e.Recipients)
}

// showWishes tells what was asked for single recipients, if anything was.
func showWishes(w io.Writer, rcpts []control.QueueRecipient) {
	var t *table
	for _, r := range rcpts {
		to := r.To
		for _, wish := range wishes(r) {
			if t == nil {
				fmt.Fprintln(w)
				t = newTable(w, "TO", "WITH")
			}
			t.row(to, wish)
			to = ""
		}
	}
	if t != nil {
		flush(t)
	}
}

// askedFields are what the sender asked for, in words; empty ones were not asked for.
func askedFields(a control.QueueAsked) [][2]string {
	return [][2]string{
		{"release", ifAny(!a.Release.IsZero(), "not before "+when(a.Release))},
		{"deadline", ifAny(!a.Deadline.IsZero(), deadline(a))},
		{"priority", ifAny(a.Priority != 0, fmt.Sprintf("%+d, of -9 to +9", a.Priority))},
		{"body", a.Body},
		{"addresses", ifAny(a.UTF8, "may be in UTF-8 (SMTPUTF8)")},
		{"security", ifAny(a.RequireTLS, "goes on by verified TLS only (REQUIRETLS)")},
		{"security", ifAny(a.TLSOptional, "goes on without TLS too, whatever its destination promises (TLS-Required: No)")},
		{"reports have", map[string]string{"FULL": "the whole message (RET=FULL)", "HDRS": "the header only (RET=HDRS)"}[a.Return]},
		{"envelope id", a.EnvelopeID},
		{"solicitation", a.Solicit},
	}
}

// deadline says when a message is to be delivered, and what else (RFC 2852).
func deadline(a control.QueueAsked) string {
	words := when(a.Deadline) + ", else the sender is told of the delay"
	if strings.HasPrefix(a.DeadlineMode, "R") {
		words = when(a.Deadline) + ", else it goes back to the sender"
	}
	return words + ifAny(strings.HasSuffix(a.DeadlineMode, "T"), "; the sender is told of relays too")
}

// wishes are what the sender asked for one recipient, and where it goes, in words.
func wishes(r control.QueueRecipient) (words []string) {
	for _, w := range []string{
		ifAny(r.List, "a list: its members get it"),
		ifAny(r.Mailbox != "", "into the mailbox "+r.Mailbox),
		ifAny(r.Via != "", "forwarded by "+r.Via),
		ifAny(r.Chosen, "by a route that was chosen for it"),
		ifAny(r.Notify == "NEVER", "reports never (NOTIFY=NEVER)"),
		ifAny(r.Notify != "" && r.Notify != "NEVER", "reports on "+strings.ReplaceAll(strings.ToLower(r.Notify), ",", ", ")),
		ifAny(r.Original != "", "sent to "+r.Original+" at first"),
		ifAny(!r.ValidSince.IsZero(), "only if its owner is the same since "+when(r.ValidSince)+
			ifAny(r.ValidContinue, ", or that cannot be checked")),
	} {
		if w != "" {
			words = append(words, w)
		}
	}
	return words
}

// ifAny is text where it applies.
func ifAny(applies bool, text string) string {
	if !applies {
		return ""
	}
	return text
}

// order is a command that changes recipients.
type order struct {
	verb, short, long, done string
	example                 string // what follows the verb and an id
	flags                   func(*cobra.Command)
	check                   func() error // of these flags; nil is none
	give                    func(control.Service, context.Context, control.QueueFilter) (control.Changed, error)
}

func (a *app) queueOrder(o order) *cobra.Command {
	var f queueFlags
	var all bool
	cmd := command{
		use: o.verb + " [ID...]", short: o.short, long: o.long, args: cobra.ArbitraryArgs, complete: a.completing(true, queueIDs),
		example: fmt.Sprintf("postroad queue %[1]s 01k8q2c4rw7xf%[2]s\npostroad queue %[1]s --domain example.net --older-than 1d%[2]s\npostroad queue %[1]s --all%[2]s", o.verb, o.example),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			filter, err := f.filter(args)
			if err != nil {
				return err
			}
			if chosen(filter) == all {
				return usagef("say which: ids, a filter such as --domain, or --all alone")
			}
			if o.check != nil {
				if err := o.check(); err != nil {
					return err
				}
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				c, err := o.give(svc, ctx, filter)
				if err != nil && c.Recipients == 0 {
					return err
				}
				shown := a.show(c, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", o.done, count(c.Recipients, "recipient")) })
				if err != nil {
					return err
				}
				return shown
			})
		},
	}.cobra()
	f.register(a, cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all recipients in the queue")
	if o.flags != nil {
		o.flags(cmd)
	}
	return cmd
}

func (a *app) queueHold() *cobra.Command {
	var reason string
	return a.queueOrder(order{
		verb: "hold", short: "keep recipients until they are released", done: "held",
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&reason, "reason", "", "why, for those who look at the queue")
		},
		give: func(svc control.Service, ctx context.Context, f control.QueueFilter) (control.Changed, error) {
			return svc.HoldQueue(ctx, control.HoldQueue{QueueFilter: f, Reason: reason})
		},
	})
}

func (a *app) queueBounce() *cobra.Command {
	var reason string
	return a.queueOrder(order{
		verb: "bounce", short: "return recipients to their senders now", done: "returned",
		flags: func(c *cobra.Command) { c.Flags().StringVar(&reason, "reason", "", "why, for the senders to read") },
		give: func(svc control.Service, ctx context.Context, f control.QueueFilter) (control.Changed, error) {
			return svc.BounceQueue(ctx, control.BounceQueue{QueueFilter: f, Reason: reason})
		},
	})
}

func (a *app) queueReroute() *cobra.Command {
	var route string
	cmd := a.queueOrder(order{
		verb: "reroute", short: "send recipients by another route, now", done: "rerouted", example: " --route spare",
		long: `Send recipients by another route than the one that is configured for them, whatever
comes of them: each attempt goes that way until they are settled or rerouted. The route
"mx" is to the hosts that DNS names, "default" what is configured. What is on hold stays
on hold. Mail for accounts of this server takes no route.`,
		flags: func(c *cobra.Command) {
			c.Flags().StringVar(&route, "route", "", `the route's name, "mx" or "default"`)
		},
		check: func() error {
			if route == "" {
				return usagef(`say which route: --route NAME, "mx" or "default"`)
			}
			return nil
		},
		give: func(svc control.Service, ctx context.Context, f control.QueueFilter) (control.Changed, error) {
			return svc.RerouteQueue(ctx, control.RerouteQueue{QueueFilter: f, Route: route})
		},
	})
	_ = cmd.RegisterFlagCompletionFunc("route", a.completeRoute)
	return cmd
}

// completeRoute offers the routes of the configuration that have a name or a domain.
func (a *app) completeRoute(_ *cobra.Command, _ []string, word string) (found []string, _ cobra.ShellCompDirective) {
	names := []string{"mx", "default"}
	if cfg, err := a.directory(); err == nil {
		for _, r := range cfg.Routes {
			names = append(names, cmp.Or(r.Name, r.Domain))
		}
	}
	for _, name := range names {
		if name != "" && strings.HasPrefix(name, word) {
			found = append(found, name)
		}
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}

// tlsNeeds are what `queue edit --tls` knows.
var tlsNeeds = []string{"require", "optional", "default"}

func (a *app) queueEdit() *cobra.Command {
	var tls string
	cmd := a.queueOrder(order{
		verb: "edit", short: "change what messages need", done: "edited", example: " --tls optional",
		long: `Change what messages need of TLS, for all of their recipients: "require" is verified TLS
or no delivery (REQUIRETLS), "optional" delivers whatever the destination promises of TLS
(as TLS-Required: No does), "default" is what the destination and its route want.`,
		flags: func(c *cobra.Command) { c.Flags().StringVar(&tls, "tls", "", "require, optional or default") },
		check: func() error {
			if !slices.Contains(tlsNeeds, tls) {
				return usagef("say what they need: --tls require, --tls optional or --tls default")
			}
			return nil
		},
		give: func(svc control.Service, ctx context.Context, f control.QueueFilter) (control.Changed, error) {
			return svc.EditQueue(ctx, control.EditQueue{QueueFilter: f, TLS: tls})
		},
	})
	_ = cmd.RegisterFlagCompletionFunc("tls", cobra.FixedCompletions(tlsNeeds, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) queueDump() *cobra.Command {
	return command{
		use: "dump ID", short: "write a message as it waits, with all its octets", args: cobra.ExactArgs(1),
		complete: a.completing(false, queueIDs), example: "postroad queue dump 01k8q2c4rw7xf > letter.eml",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if _, err := svc.QueueEntry(ctx, args[0]); err != nil {
				return err
			}
			return svc.ReadMessage(ctx, control.MessageName{ID: args[0]}, a.out)
		}),
	}.cobra()
}

func (a *app) queueExplain() *cobra.Command {
	return command{
		use: "explain ID", short: "say why each recipient of a message is not yet delivered", args: cobra.ExactArgs(1),
		long: `Say why each recipient of a message is not yet delivered, in plain words, and what is
known of where it goes: the last replies, its TLS, how many attempts are under way.`,
		complete: a.completing(false, queueIDs), example: "postroad queue explain 01k8q2c4rw7xf",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			x, err := svc.ExplainQueue(ctx, args[0])
			if err != nil {
				return err
			}
			return a.show(x, func(w io.Writer) { showExplanation(w, x) })
		}),
	}.cobra()
}

func showExplanation(w io.Writer, x control.Explanation) {
	told := map[string]bool{}
	for i, r := range x.Recipients {
		if i > 0 {
			fmt.Fprintln(w)
		}
		fmt.Fprintf(w, "%s: %s\n", clean(r.To), clean(r.State))
		for _, why := range r.Why {
			wrapped(w, "  ", clean(why))
		}
		if d := r.Destination; d != nil && !told[d.Name] {
			told[d.Name] = true
			fmt.Fprintf(w, "  destination %s:\n", clean(d.Name))
			for _, words := range destinationWords(*d) {
				wrapped(w, "    ", clean(words))
			}
		}
	}
	if x.More > 0 {
		fmt.Fprintf(w, "\nand %s more\n", count(x.More, "recipient"))
	}
}
