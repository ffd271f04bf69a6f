package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/config"
	"postroad/internal/control"
)

func (a *app) queueCommands() *cobra.Command {
	return a.group("queue", "accepted mail that is not settled yet",
		a.queueList(), a.queueShow(),
		a.queueChange("retry", "try recipients now", "due now", control.Service.RetryQueue),
		a.queueChange("hold", "keep recipients until they are released", "held", control.Service.HoldQueue),
		a.queueChange("release", "end a hold", "released", control.Service.ReleaseQueue),
		a.queueChange("remove", "take recipients out for good, without a report to the sender", "removed", control.Service.RemoveQueue))
}

// queueFlags are the flags that choose recipients.
type queueFlags struct {
	control.QueueFilter
	older, younger string
}

func (f *queueFlags) register(c *cobra.Command) {
	flags := c.Flags()
	flags.StringVar(&f.Sender, "sender", "", "of this sender: an address, @domain, or <> for reports")
	flags.StringVar(&f.Recipient, "recipient", "", "for this recipient: an address or @domain")
	flags.StringVar(&f.Domain, "domain", "", "for recipients in this domain")
	flags.StringVar(&f.State, "state", "", "in this state: active, deferred or hold")
	flags.StringVar(&f.older, "older-than", "", "that arrived longer ago than this, as in 2h or 3d")
	flags.StringVar(&f.younger, "younger-than", "", "that arrived within this time")
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
	return len(f.IDs) > 0 || f.Sender+f.Recipient+f.Domain+f.State != "" || f.OlderThan > 0 || f.YoungerThan > 0
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
				return list(a, svc.Queue(ctx, filter), []string{"ID", "ARRIVED", "SIZE", "FROM", "TO", "STATE", "NEXT", "LAST REPLY"}, queueRows, noneWaits(filter))
			})
		},
	}.cobra()
	f.register(cmd)
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
	for _, r := range e.Recipients {
		t.row(id, arrived, octets, from, r.To, r.State, when(r.Next), brief(lastWord(e, r), 60))
		id, arrived, octets, from = "", "", "", ""
	}
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

// lastWord is the reply of the last attempt, or why there was none.
func lastWord(e control.QueueEntry, r control.QueueRecipient) string {
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
	t := newTable(w, "TO", "STATE", "ATTEMPTS", "NEXT", "LAST REPLY")
	for _, r := range e.Recipients {
		t.row(r.To, r.State, r.Attempts, when(r.Next), lastWord(e, r))
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

// queueChange is a command that changes recipients.
func (a *app) queueChange(verb, short, done string, change func(control.Service, context.Context, control.QueueFilter) (control.Changed, error)) *cobra.Command {
	var f queueFlags
	var all bool
	cmd := command{
		use: verb + " [ID...]", short: short, args: cobra.ArbitraryArgs, complete: a.completing(true, queueIDs),
		example: fmt.Sprintf("postroad queue %[1]s 01k8q2c4rw7xf\npostroad queue %[1]s --domain example.net --older-than 1d\npostroad queue %[1]s --all", verb),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			filter, err := f.filter(args)
			if err != nil {
				return err
			}
			if chosen(filter) == all {
				return usagef("say which: ids, a filter such as --domain, or --all alone")
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				c, err := change(svc, ctx, filter)
				if err != nil && c.Recipients == 0 {
					return err
				}
				shown := a.show(c, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", done, count(c.Recipients, "recipient")) })
				if err != nil {
					return err
				}
				return shown
			})
		},
	}.cobra()
	f.register(cmd)
	cmd.Flags().BoolVar(&all, "all", false, "all recipients in the queue")
	return cmd
}
