package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) indexCommands() *cobra.Command {
	return a.group("index", "the index by which searches find text", a.indexStatus(), a.indexRebuild())
}

func (a *app) indexStatus() *cobra.Command {
	return command{
		use: "status [ACCOUNT]", short: "tell how far the index of each mailbox is", args: cobra.MaximumNArgs(1),
		long: `Tell how far the index of each mailbox is. What is not in it a search looks at
itself, as it does in small mailboxes, which need none.`,
		complete: a.completing(false, accountNames), example: "postroad index status\npostroad index status alice@example.test --json",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			heads := []string{"ACCOUNT", "MAILBOX", "MESSAGES", "SIZE", "INDEXED", "BLOCKS", "INDEX"}
			return list(a, svc.Index(ctx, optional(args)), heads, func(t *table, m control.IndexedMailbox) {
				t.row(m.Account, m.Mailbox, m.Messages, size(m.Octets), m.Indexed, m.Blocks, size(m.IndexOctets))
			}, "no mailboxes")
		}),
	}.cobra()
}

func (a *app) indexRebuild() *cobra.Command {
	return command{
		use: "rebuild [ACCOUNT]", short: "make the index of an account's mailboxes again, or of all", args: cobra.MaximumNArgs(1),
		long: `Make the index by which searches find text again, of an account's mailboxes or of
all. It is never needed for right answers: a damaged index is noticed and made
again. Searches need longer meanwhile.`,
		complete: a.completing(false, accountNames), example: "postroad index rebuild alice@example.test",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			line := a.progress()
			r, err := svc.RebuildIndex(ctx, optional(args), line.of)
			line.end()
			if err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) {
				fmt.Fprintf(w, "looked at %s; %s are in an index of %s\n", count(r.Mailboxes, "mailbox"), count(int64(r.Indexed), "message"), size(r.IndexOctets))
			})
		}),
	}.cobra()
}

// optional is the argument that a command may have.
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
