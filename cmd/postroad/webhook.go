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

func (a *app) webhookCommands() *cobra.Command {
	return a.group("webhook", "applications that are told what becomes of mail", a.webhookList(), a.webhookTest())
}

func (a *app) webhookList() *cobra.Command {
	return command{
		use: "list", short: "list the webhooks of the running server", args: cobra.NoArgs,
		long: `List the webhooks of the running server. WAITING is how many posts of events are in the
queue; "postroad queue list" shows what their application said last.`,
		example: "postroad webhook list\npostroad webhook list --json",
		run: a.on(func(ctx context.Context, svc control.Service, _ []string) error {
			return list(a, svc.Webhooks(ctx), []string{"NAME", "URL", "EVENTS", "ACCOUNTS", "KEY", "WAITING"}, func(t *table, h control.Webhook) {
				t.row(h.Name, h.URL, cmp.Or(strings.Join(h.Events, " "), "all"), cmp.Or(strings.Join(h.Accounts, " "), "all"), h.KeyID, h.Waiting)
			}, "no webhooks")
		}),
	}.cobra()
}

func (a *app) webhookTest() *cobra.Command {
	return command{
		use: "test NAME", short: "post a sample event now", args: cobra.ExactArgs(1),
		long: `Post a sample event to a webhook now, signed as all are, and show what the application
answers. It is posted once. The command fails unless the answer would take an event.`,
		example: "postroad webhook test orders", complete: a.completing(false, webhookNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			var answer control.WebhookAnswer
			err := a.during("posting", func() (err error) {
				answer, err = svc.TestWebhook(ctx, args[0])
				return err
			})
			if err != nil {
				return err
			}
			if err := a.show(answer, func(w io.Writer) { showAnswer(w, answer) }); err != nil || answer.Code/100 == 2 {
				return err
			}
			return control.Errorf(control.Refused, "the application does not take events: HTTP %d", answer.Code)
		}),
	}.cobra()
}

func showAnswer(w io.Writer, a control.WebhookAnswer) {
	fmt.Fprintf(w, "HTTP %d from %s\n", a.Code, cmp.Or(clean(a.Peer), "-"))
	if a.TLS != "" {
		fmt.Fprintln(w, clean(a.TLS))
	}
	if a.Text != "" {
		fmt.Fprintln(w, clean(a.Text))
	}
}

func webhookNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for h, err := range svc.Webhooks(ctx) {
		if err != nil || !add(h.Name) {
			return err
		}
	}
	return nil
}
