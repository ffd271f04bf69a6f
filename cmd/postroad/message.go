package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) messageCommands() *cobra.Command {
	return a.group("message", "the messages in mailboxes", a.messageList(), a.messageShow(), a.messageImport())
}

func (a *app) messageList() *cobra.Command {
	var l control.MessageList
	cmd := command{
		use: "list ACCOUNT [MAILBOX]", short: "list the messages of a mailbox", args: cobra.RangeArgs(1, 2),
		long:     "List the messages of a mailbox, INBOX when none is named, in order of UID.",
		complete: a.completing(false, accountNames, mailboxNames),
		example:  "postroad message list alice@example.test\npostroad message list alice@example.test Archive --limit 20 --json",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			l.MailboxName = control.MailboxName{Account: args[0], Mailbox: mailboxArg(args)}
			return list(a, svc.Messages(ctx, l), []string{"UID", "ID", "DATE", "SIZE", "FLAGS", "FROM", "SUBJECT"}, func(t *table, m control.Message) {
				t.row(m.UID, m.ID, when(m.Internal), size(m.Size), strings.Join(m.Flags, " "), brief(m.From, 40), brief(m.Subject, 60))
			}, "no messages")
		}),
	}.cobra()
	cmd.Flags().IntVar(&l.Limit, "limit", 0, "list at most so many")
	cmd.Flags().Uint32Var(&l.After, "after", 0, "list those after this UID")
	return cmd
}

func mailboxArg(args []string) string {
	if len(args) > 1 {
		return args[1]
	}
	return "INBOX"
}

func (a *app) messageShow() *cobra.Command {
	cmd := command{
		use: "show ID | ACCOUNT MAILBOX UID", short: "print a message as it is stored", args: oneOrThree,
		long: `Print a message as it is stored. On a terminal, control characters in it are
written out; into a file or a pipe go the octets as they are.`,
		complete: a.completing(false, accountNames, mailboxNames),
		example:  "postroad message show 01k8q2c4rw7xf > message.eml\npostroad message show alice@example.test INBOX 1",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			name, err := messageName(args)
			if err != nil {
				return err
			}
			return a.showMessage(ctx, svc, name)
		}),
	}.cobra()
	return cmd
}

func oneOrThree(_ *cobra.Command, args []string) error {
	if len(args) == 1 || len(args) == 3 {
		return nil
	}
	return usagef("name the message by its id, or by account, mailbox and UID")
}

func messageName(args []string) (control.MessageName, error) {
	if len(args) == 1 {
		return control.MessageName{ID: args[0]}, nil
	}
	uid, err := strconv.ParseUint(args[2], 10, 32)
	if err != nil || uid == 0 {
		return control.MessageName{}, usagef("%q is not a UID", args[2])
	}
	return control.MessageName{Account: args[0], Mailbox: args[1], UID: uint32(uid)}, nil
}

// shownMessage is a message as JSON. Octets that are not UTF-8 are replaced; who
// needs them takes the plain output.
type shownMessage struct {
	control.MessageName
	Text string `json:"text"`
}

// maxShown bounds the message that goes into one JSON string.
const maxShown = 100 << 20

func (a *app) showMessage(ctx context.Context, svc control.Service, name control.MessageName) error {
	if a.json {
		var b limitedBuffer
		if err := svc.ReadMessage(ctx, name, &b); err != nil {
			return err
		}
		return a.printJSON(shownMessage{name, b.String()})
	}
	if isTerminal(a.out) {
		w := &cleanWriter{w: a.out}
		if err := svc.ReadMessage(ctx, name, w); err != nil {
			return err
		}
		return w.flush()
	}
	return svc.ReadMessage(ctx, name, a.out)
}

// limitedBuffer refuses what would not fit into memory.
type limitedBuffer struct{ bytes.Buffer }

func (b *limitedBuffer) Write(p []byte) (int, error) {
	if b.Len()+len(p) > maxShown {
		return 0, fmt.Errorf("the message is too large for JSON; leave --json out")
	}
	return b.Buffer.Write(p)
}

// cleanWriter writes text for a terminal, line by line.
type cleanWriter struct {
	w    io.Writer
	line []byte
}

// maxTerminalLine is where a line is broken that never ends.
const maxTerminalLine = 64 << 10

func (c *cleanWriter) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		if i < 0 {
			c.line, p = append(c.line, p...), nil
		} else {
			c.line, p = append(c.line, p[:i+1]...), p[i+1:]
		}
		if i >= 0 || len(c.line) > maxTerminalLine {
			if err := c.flush(); err != nil {
				return 0, err
			}
		}
	}
	return n, nil
}

func (c *cleanWriter) flush() error {
	_, err := io.WriteString(c.w, cleanLines(strings.Replace(string(c.line), "\r\n", "\n", 1)))
	c.line = c.line[:0]
	return err
}
