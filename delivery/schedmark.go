package delivery

import (
	"slices"

	"postroad/spool"
)

// While a destination takes a backlog, its messages are marked (spool.Sending) a few ahead of their turn and together, so
// that a connection does not wait for a commit of its own before each final dot. After a crash, the few that were marked
// and not yet sent are called "possibly delivered" too.

// markAhead marks messages at the front of a queue, with those of the batch that goes before them. It returns the
// batch's mark, or nil when it is for the attempt to make one. mu must be held.
func (r *Runner) markAhead(l *lane, c spool.Class, batch []spool.Due) *mark {
	own := l.marks[batch[0].Message]
	if q := l.queue[c]; len(q) == 0 || q[0].Message != batch[0].Message {
		delete(l.marks, batch[0].Message)
	}
	if l.last.Code/100 != 2 || l.gap > 0 || len(l.queue[c]) == 0 {
		return own
	}
	most := r.ahead(l)
	first, end := l.unmarked(c), min(most, len(l.queue[c]))
	if own != nil && first >= most/2 || first >= end {
		return own
	}
	for end < len(l.queue[c]) && l.queue[c][end].Message == l.queue[c][end-1].Message {
		end++
	}
	next := l.queue[c][first:end]
	all := slices.Clone(next)
	if own == nil {
		all = append(all, batch...)
	}
	m := r.mark(all)
	for i := range next {
		next[i].Recipient.Sent = r.cfg.Now()
		l.marks[next[i].Message] = m
	}
	if own == nil {
		own = m
	}
	return own
}

// ahead is how many messages of a lane are marked ahead: two for each conversation, and more when there is hardly another
// lane to share commits with. mu must be held.
func (r *Runner) ahead(l *lane) int {
	if 2*l.active > r.active.sum {
		return 8 * l.limit.now
	}
	return 2 * l.limit.now
}

// unmarked is the index of the first in a queue that is not marked.
func (l *lane) unmarked(c spool.Class) int {
	for i, d := range l.queue[c] {
		if l.marks[d.Message] == nil {
			return i
		}
	}
	return len(l.queue[c])
}

// giveBack returns recipients that were not tried to the spool, without the marks that some have.
func (r *Runner) giveBack(due []spool.Due) {
	var clean, unsent []spool.Due
	for _, d := range due {
		if marked(d) {
			unsent = append(unsent, d)
		} else {
			clean = append(clean, d)
		}
	}
	r.cfg.Spool.GiveBack(clean...)
	r.unmark(unsent)
}
