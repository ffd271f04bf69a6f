package delivery

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"postroad/internal/store"
	"postroad/spool"
)

// Bounce returns the chosen recipients to their senders, who are told words, and returns how many. by is who ordered it.
// It needs no Run. An attempt that is under way is not called back: what it brings no longer counts, and the trace says so.
func (r *Runner) Bounce(ctx context.Context, f spool.Filter, by, words string) (int, error) {
	reply := r.ours("5.7.1", words)
	if words == "" {
		reply.Text = "the administrator of this server has ended its delivery"
	}
	reply.Code = 550
	return r.giveUp(ctx, f, outcome{verdict: failed, reply: reply, by: by})
}

// Expire gives the chosen recipients up as if the schedule had ended now. It is like Bounce otherwise.
func (r *Runner) Expire(ctx context.Context, f spool.Filter, by string) (int, error) {
	reply := r.ours("4.4.7", "the administrator of this server does not let it be tried any longer")
	return r.giveUp(ctx, f, outcome{verdict: expired, reply: reply, by: by})
}

// Bounds of one transaction of giveUp.
const (
	giveUpMessages   = 100
	giveUpRecipients = 1000
)

// giveUp gives all that f chooses the same end, and not the reports that it makes of this.
func (r *Runner) giveUp(ctx context.Context, f spool.Filter, end outcome) (n int, err error) {
	began := r.cfg.Store.NewID()
	for after := store.ID(0); ctx.Err() == nil; {
		entries, err := r.cfg.Spool.List(ctx, f, after, giveUpMessages)
		if err != nil || len(entries) == 0 {
			return n, err
		}
		for i := range entries {
			if entries[i].Message.ID > began {
				return n, nil
			}
			done, err := r.giveUpEntry(&entries[i], end)
			if n += done; err != nil {
				return n, err
			}
			after = entries[i].Message.ID
		}
	}
	return n, ctx.Err()
}

func (r *Runner) giveUpEntry(e *spool.Entry, end outcome) (n int, err error) {
	for some := range slices.Chunk(e.Recipients, giveUpRecipients) {
		var outcomes []outcome
		for _, rcpt := range some {
			o := end
			o.due = spool.Due{Message: &e.Message, Recipient: rcpt}
			if last := rcpt.Last; end.verdict == expired && last.String() != "" {
				o.reply = last // what the other side said helps more than that somebody lost patience
			}
			outcomes = append(outcomes, o)
		}
		done, err := r.end(outcomes)
		if n += done; err != nil {
			return n, err
		}
	}
	return n, nil
}

// end settles recipients that nobody has claimed, and returns how many were still there.
func (r *Runner) end(outcomes []outcome) (int, error) {
	for len(outcomes) > 0 {
		removed, err := r.settle(outcomes)
		if err == nil {
			r.logOutcomes(outcomes)
			return len(outcomes), nil
		}
		if !errors.Is(err, errRemoved) {
			return 0, fmt.Errorf("give up %s: %w", outcomes[0].due.Message.ID, err)
		}
		outcomes = without(outcomes, removed)
	}
	return 0, nil
}
