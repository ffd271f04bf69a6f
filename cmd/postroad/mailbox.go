package main

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) mailboxCommands() *cobra.Command {
	return a.group("mailbox", "the mailboxes of an account", a.mailboxList(), a.mailboxCreate(), a.mailboxRename(),
		a.mailboxRemove(), a.mailboxShares(), a.mailboxShare(), a.mailboxUnshare())
}

func mailboxTable(w io.Writer) *table {
	return newTable(w, mailboxHeads...)
}

var mailboxHeads = []string{"MAILBOX", "ROLE", "MESSAGES", "UNSEEN", "SIZE", "UIDNEXT", "UIDVALIDITY"}

func mailboxRow(t *table, m control.Mailbox) {
	t.row(m.Name, m.Role, m.Messages, m.Unseen, size(m.Octets), m.UIDNext, m.UIDValidity)
}

func (a *app) mailboxList() *cobra.Command {
	return command{
		use: "list ACCOUNT", short: "list an account's mailboxes", args: cobra.ExactArgs(1), complete: a.completing(false, accountNames),
		example: "postroad mailbox list alice@example.test",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			boxes, err := svc.Mailboxes(ctx, args[0])
			return list(a, each(boxes, err), mailboxHeads, mailboxRow, "no mailboxes")
		}),
	}.cobra()
}

func (a *app) mailboxCreate() *cobra.Command {
	var role string
	cmd := command{
		use: "create ACCOUNT MAILBOX", short: "make a mailbox, and those above it", args: cobra.ExactArgs(2), complete: a.completing(false, accountNames),
		example: "postroad mailbox create alice@example.test Lists/postroad",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			m, err := svc.CreateMailbox(ctx, control.MailboxName{Account: args[0], Mailbox: args[1], Role: role})
			if err != nil {
				return err
			}
			return a.show(m, func(w io.Writer) { fmt.Fprintf(w, "created %s\n", clean(m.Name)) })
		}),
	}.cobra()
	cmd.Flags().StringVar(&role, "role", "", "what mail clients use it for: drafts, sent, junk, trash or archive")
	return cmd
}

func (a *app) mailboxRename() *cobra.Command {
	return command{
		use: "rename ACCOUNT MAILBOX NEW-NAME", short: "rename a mailbox and all below it", args: cobra.ExactArgs(3),
		complete: a.completing(false, accountNames, mailboxNames), example: "postroad mailbox rename alice@example.test Lists Archive/Lists",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			r := control.RenameMailbox{Account: args[0], From: args[1], To: args[2]}
			if err := svc.RenameMailbox(ctx, r); err != nil {
				return err
			}
			return a.show(r, func(w io.Writer) { fmt.Fprintf(w, "renamed %s to %s\n", clean(r.From), clean(r.To)) })
		}),
	}.cobra()
}

func (a *app) mailboxRemove() *cobra.Command {
	var yes bool
	cmd := command{
		use: "remove ACCOUNT MAILBOX", short: "remove a mailbox with its messages, for good", args: cobra.ExactArgs(2),
		complete: a.completing(false, accountNames, mailboxNames), example: "postroad mailbox remove alice@example.test Lists/postroad",
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			if err := a.sure(ctx, yes, fmt.Sprintf("remove %s of %s with its messages?", args[1], args[0])); err != nil {
				return err
			}
			name := control.MailboxName{Account: args[0], Mailbox: args[1]}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				if err := a.during("removing "+args[1], func() error { return svc.RemoveMailbox(ctx, name) }); err != nil {
					return err
				}
				return a.did("removed", args[1])
			})
		},
	}.cobra()
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) mailboxShares() *cobra.Command {
	return command{
		use: "shares ACCOUNT MAILBOX", short: "list who may do what with a mailbox", args: cobra.ExactArgs(2),
		complete: a.completing(false, accountNames, mailboxNames), example: "postroad mailbox shares alice@example.test Projects",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			shares, err := svc.Shares(ctx, control.MailboxName{Account: args[0], Mailbox: args[1]})
			return list(a, each(shares, err), []string{"WITH", "RIGHTS"}, func(t *table, s control.Share) { t.row(s.With, s.Rights) }, "nobody")
		}),
	}.cobra()
}

func (a *app) mailboxShare() *cobra.Command {
	return command{
		use: "share ACCOUNT MAILBOX WITH [RIGHTS]", short: "let another account, or anyone, use a mailbox", args: cobra.RangeArgs(3, 4),
		long: `Let another account use a mailbox; "anyone" is all accounts. The other finds it
under "Other Users/" and the owner's address. It replaces what was said before.

RIGHTS are
  read    see it, read it, and keep which messages were seen; the default
  write   and store, change and delete messages
  all     and make, rename and remove mailboxes, and share them
or letters of these (RFC 4314):
  l see it    r read    s keep \Seen    w keep other flags    i store messages    p post
  k make mailboxes below it    x remove or rename it    t delete messages    e expunge
  a change who has which rights`,
		complete: a.completing(false, accountNames, mailboxNames, accountNames),
		example: `postroad mailbox share alice@example.test Projects bob@example.test
postroad mailbox share alice@example.test Projects bob@example.test write
postroad mailbox share alice@example.test News anyone lr`,
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			rights := "read"
			if len(args) == 4 {
				rights = args[3]
			}
			if rights == "" {
				return usagef("no rights; `postroad mailbox unshare` takes them away")
			}
			return a.shareMailbox(ctx, svc, control.ShareMailbox{
				Account: args[0], Mailbox: args[1], Share: control.Share{With: args[2], Rights: rights},
			})
		}),
	}.cobra()
}

func (a *app) mailboxUnshare() *cobra.Command {
	return command{
		use: "unshare ACCOUNT MAILBOX WITH", short: "take back what another account may do with a mailbox", args: cobra.ExactArgs(3),
		complete: a.completing(false, accountNames, mailboxNames, accountNames),
		example:  "postroad mailbox unshare alice@example.test Projects bob@example.test",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			return a.shareMailbox(ctx, svc, control.ShareMailbox{Account: args[0], Mailbox: args[1], Share: control.Share{With: args[2]}})
		}),
	}.cobra()
}

func (a *app) shareMailbox(ctx context.Context, svc control.Service, s control.ShareMailbox) error {
	share, err := svc.ShareMailbox(ctx, s)
	if err != nil {
		return err
	}
	return a.show(share, func(w io.Writer) {
		if share.Rights == "" {
			fmt.Fprintf(w, "%s of %s is not shared with %s\n", clean(s.Mailbox), clean(s.Account), clean(share.With))
			return
		}
		fmt.Fprintf(w, "%s of %s is shared with %s: %s\n", clean(s.Mailbox), clean(s.Account), clean(share.With), share.Rights)
	})
}
