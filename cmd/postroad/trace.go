package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) traceCommand() *cobra.Command {
	var limit int
	var dialogue bool
	cmd := command{
		use: "trace ID | MESSAGE-ID | ADDRESS", short: "tell the life of messages", args: cobra.ExactArgs(1),
		long: `Tell the life of messages, the newest first: who brought them, each attempt with
the other side's reply, and where they ended. Name one by its id or its Message-ID,
or several by the address of their sender or a recipient. --dialogue shows what was said
in each attempt: "> " by us, "< " by the other side, "= " what happened meanwhile. Passwords
and the message itself are left out.`,
		complete: a.completing(false, accountNames),
		example: `postroad trace 01k8q2c4rw7xf
postroad trace '<20261120.1@example.org>'
postroad trace 01k8q2c4rw7xf --dialogue
postroad trace alice@example.test --limit 5`,
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			seen := false
			for life, err := range svc.Trace(ctx, control.TraceQuery{What: args[0], Limit: limit}) {
				if err != nil {
					return err
				}
				if seen && !a.json {
					fmt.Fprintln(a.out)
				}
				seen = true
				if err := a.show(life, func(w io.Writer) { showLife(w, life, dialogue) }); err != nil {
					return err
				}
			}
			return nil
		}),
	}.cobra()
	cmd.Flags().IntVar(&limit, "limit", 0, "tell of at most so many messages (default 20)")
	cmd.Flags().BoolVar(&dialogue, "dialogue", false, "show what was said in each attempt")
	return cmd
}

func showLife(w io.Writer, l control.Life, dialogue bool) {
	fmt.Fprintln(w, "message", clean(l.ID))
	t := newTable(w)
	for _, e := range l.Events {
		t.row("  "+when(e.Time), e.Kind, eventText(e))
		if dialogue {
			for _, line := range dialogueLines(e.Dialogue) {
				t.row("", "", line)
			}
		}
	}
	if l.Queue != nil {
		for _, r := range l.Queue.Recipients {
			t.row("  now", r.State, waitingText(r))
		}
	}
	flush(t)
}

// dialogueLines are the lines of a dialogue, those that are too long in several.
func dialogueLines(dialogue string) (lines []string) {
	const width = 110
	for line := range strings.Lines(dialogue) {
		rest := []rune(strings.TrimRight(line, "\r\n"))
		for ; len(rest) > width; rest = append([]rune("    "), rest[width:]...) {
			lines = append(lines, string(rest[:width]))
		}
		lines = append(lines, string(rest))
	}
	return lines
}

func waitingText(r control.QueueRecipient) string {
	if r.Next.IsZero() {
		return "for " + r.To
	}
	return fmt.Sprintf("for %s, next attempt %s", r.To, when(r.Next))
}

// eventText tells an event in a line: what is known of it, in the order of a
// sentence.
func eventText(e control.Event) string {
	var parts []string
	for _, p := range []struct{ before, value string }{
		{"from ", e.From},
		{"to ", strings.Join(e.Given, " ")},
		{"for ", strings.Join(e.To, " ")},
		{"into ", e.Mailbox},
		{"UID ", number(int64(e.UID))},
		{"", octets(e.Size)},
		{"by ", strings.TrimSpace(e.Protocol)},
		{"peer ", e.Peer},
		{"", e.TLS},
		{"account ", e.Account},
		{"ordered by ", e.By},
		{replyWords(e), e.Reply},
		{nextWords(e), nextAttempt(e.Next)},
		{"message-id ", e.MessageID},
		{"see ", e.Related},
	} {
		if p.value != "" {
			parts = append(parts, p.before+p.value)
		}
	}
	return strings.Join(parts, ", ")
}

// replyWords say whose words those are that an event keeps: mostly of the other side, or of who did something to it.
func replyWords(e control.Event) string {
	switch e.Kind {
	case "rerouted", "edited", "held", "suppressed", "discarded":
		return ""
	}
	return "reply: "
}

// nextWords say what the time is that an event names.
func nextWords(e control.Event) string {
	if e.Kind == "received" {
		return "to be released at "
	}
	return "next attempt "
}

// nextAttempt is the time that an event holds as text, as all times are shown.
func nextAttempt(text string) string {
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return text
	}
	return when(t)
}

func number(n int64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func octets(n int64) string {
	if n == 0 {
		return ""
	}
	return size(n)
}
