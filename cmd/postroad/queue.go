package main

import (
	"context"
	"fmt"
	"io"
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
		t.row(id, arrived, octets, from, r.To, r.State, when(r.Next), brief(r.Reply, 60))
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

func showQueueEntry(w io.Writer, e control.QueueEntry) {
	fields := newTable(w, "id", e.ID)
	for _, f := range [][2]string{
		{"arrived", fmt.Sprintf("%s (%s ago)", when(e.Arrived), lasting(time.Since(e.Arrived)))},
		{"size", size(e.Size)}, {"from", e.From}, {"message-id", e.MessageID},
		{"protocol", e.Protocol}, {"peer", e.Peer}, {"account", e.Account},
	} {
		if f[1] != "" {
			fields.row(f[0], f[1])
		}
	}
	flush(fields)
	fmt.Fprintln(w)
	t := newTable(w, "TO", "STATE", "ATTEMPTS", "NEXT", "LAST REPLY")
	for _, r := range e.Recipients {
		t.row(r.To, r.State, r.Attempts, when(r.Next), r.Reply)
	}
	flush(t)
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
