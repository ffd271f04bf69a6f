package delivery

import (
	"context"
	"errors"
	"net/netip"
	"strings"

	"postroad/delivery/smtpc"
	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// Bounds of one attempt.
const (
	maxAddresses = 10 // addresses that are tried to connect to
	maxSessions  = 2  // hosts that are asked to take the message, as long as they say "later"
)

// attempt is one try to hand one message to one destination, for recipients that
// belong together. One goroutine.
type attempt struct {
	r    *Runner
	lane *lane
	msg  *spool.Message
	done []outcome // one for each recipient; those in left may still change
	left []int     // not settled: another host may take them

	reached  bool // a host was ready for a transaction, or there is none to reach
	last     envelope.Reply
	tried    int // addresses
	sessions int
	damaged  error // the body cannot be read
}

// attempt tries, records the outcomes, and tells whether the destination could be
// reached; if not, reply says why.
func (r *Runner) attempt(l *lane, batch []spool.Due) (reached bool, reply envelope.Reply) {
	a := &attempt{r: r, lane: l, msg: batch[0].Message}
	for i, d := range batch {
		a.done = append(a.done, outcome{due: d})
		a.left = append(a.left, i)
	}
	if err := r.guarded("send "+a.msg.ID.String(), func() error { a.run(r.hard); return nil }); err != nil {
		a.reached = true
		a.settle(r.ours("4.3.0", "this attempt failed: "+err.Error()))
	}
	a.record()
	return a.reached, a.last
}

// record makes the outcomes durable. Of what has no answer, a damaged message waits
// for a person's eye, and what was broken off because we stop is given back as it was.
func (a *attempt) record() {
	r := a.r
	damaged := errors.Is(a.damaged, store.ErrDamaged) || errors.Is(a.damaged, store.ErrNoBody)
	var told []outcome
	var open []spool.Due
	for _, o := range a.done {
		if o.reply.Code == 0 && !o.doubtful && (damaged || r.hard.Err() != nil) {
			open = append(open, o.due)
		} else {
			told = append(told, o)
		}
	}
	if len(told) > 0 {
		r.record(r.hard, told)
	}
	if damaged {
		r.hold(r.hard, r.ours("4.3.0", "the message cannot be read: "+a.damaged.Error()), open...)
	} else {
		r.cfg.Spool.GiveBack(open...)
	}
}

func (a *attempt) run(ctx context.Context) {
	for c := a.r.borrow(a.lane); c != nil && len(a.left) > 0; c = a.r.borrow(a.lane) {
		if c.conn.Reset() != nil { // it died while it waited; that is nobody's fault
			c.conn.Close()
			continue
		}
		a.send(c.conn, c.sent)
		break
	}
	if len(a.left) == 0 || a.damaged != nil || a.sessions > 0 && !a.lostHost() {
		return
	}
	a.connectAndSend(ctx)
}

// lostHost reports whether the last host gave no answer of its own, so that another
// connection is worth a try.
func (a *attempt) lostHost() bool { return a.last.Code == 0 || a.last.Code == 421 }

// connectAndSend goes through the hosts of the destination and their addresses.
func (a *attempt) connectAndSend(ctx context.Context) {
	hosts, err := a.hosts(ctx)
	if err != nil {
		a.noHost(err)
		return
	}
	var trouble error
	for _, host := range hosts {
		addrs, err := a.addresses(ctx, host)
		if err != nil {
			trouble = worse(trouble, err)
			continue
		}
		for _, ip := range addrs {
			if a.tryAddress(ctx, host, ip); a.finished(ctx) {
				return
			}
		}
	}
	if a.tried == 0 {
		a.noHost(trouble)
	}
}

func (a *attempt) finished(ctx context.Context) bool {
	return len(a.left) == 0 || a.damaged != nil || a.tried >= maxAddresses || a.sessions >= maxSessions || ctx.Err() != nil
}

// noHost settles recipients whose destination has no host to connect to.
func (a *attempt) noHost(err error) {
	reply := a.r.ours("4.4.3", "the domain's mail host cannot be looked up: "+err.Error())
	fatal := func(code int, status string) { reply.Code, reply.Enhanced, a.reached = code, status, true }
	switch {
	case errors.Is(err, dns.ErrNullMX):
		fatal(556, "5.1.10")
		reply.Text = "the domain does not take mail (null MX)"
	case errors.Is(err, errLoop):
		fatal(550, "5.4.6")
		reply.Text = err.Error()
	case errors.Is(err, errPrivate):
		fatal(550, "5.4.4")
		reply.Text = err.Error()
	case !a.lane.byMX(): // a mistake of the administrator is not the sender's fault
	case errors.Is(err, dns.ErrNotFound):
		fatal(550, "5.1.2")
		reply.Text = "the domain has no mail host: " + err.Error()
	}
	a.settle(reply)
}

// tryAddress connects and, when that works, sends.
func (a *attempt) tryAddress(ctx context.Context, host string, ip netip.Addr) {
	a.tried++
	conn, err := a.connect(ctx, host, ip)
	switch {
	case err != nil:
		a.refusedAtDoor(err)
	case a.looped(conn):
		conn.Close()
		a.noHost(errLoop)
	default:
		a.send(conn, 0)
	}
}

// looped reports whether the host that answered has our own name.
func (a *attempt) looped(conn *smtpc.Conn) bool {
	name := a.r.cfg.Hostname
	return a.lane.byMX() && strings.Contains(name, ".") && strings.EqualFold(conn.Greeted(), name)
}

// refusedAtDoor remembers why a host cannot be used. What it says before any
// message was named is about us or itself, not about a recipient: even a 5yz there
// defers, except for those by which a host says that it takes no mail (RFC 7504).
func (a *attempt) refusedAtDoor(err error) {
	reply := a.r.ours("4.4.1", err.Error())
	if e, ok := errors.AsType[*smtpc.Error](err); ok {
		reply.Text, reply.From = envelope.Sanitize(e.Error(), 1000), e.Reply.From
		reply.Enhanced = "4.4.2"
		if e.Reply.Code == 521 || e.Reply.Code == 556 {
			reply = e.Reply
		}
	}
	a.note(reply)
}

// note gives all recipients that are left a reply that may not be the last.
func (a *attempt) note(reply envelope.Reply) {
	a.last = reply
	for _, i := range a.left {
		a.done[i].reply = reply
	}
}

// settle gives all recipients that are left their final reply.
func (a *attempt) settle(reply envelope.Reply) {
	a.note(reply)
	a.left = nil
}

// send runs transactions on a connection as long as they bring recipients forward.
func (a *attempt) send(conn *smtpc.Conn, sent int) {
	a.reached = true
	a.sessions++
	for len(a.left) > 0 && !conn.Broken() {
		sent++
		if !a.transact(conn) {
			break
		}
	}
	a.r.keep(a.lane, conn, sent)
}

// BUG: a crash of ours after the final dot and before the reply is recorded sends the
// message again, and the trace does not say "possibly delivered" then.

// transact runs one transaction with the recipients that are left, and reports
// whether another one makes sense: recipients that were too many for this one.
func (a *attempt) transact(conn *smtpc.Conn) (again bool) {
	res, asked := a.exchange(conn), a.left
	progress := false
	for n, i := range asked {
		o := &a.done[i]
		if a.damaged = res.BodyErr; a.damaged != nil {
			res.Replies[n] = a.r.ours("4.3.0", "the message cannot be read: "+a.damaged.Error())
		}
		o.reply, o.tls, o.reports = res.Replies[n], conn.TLS(), conn.Offers("DSN")
		o.doubtful = res.Doubtful && o.reply.Code == 0
		a.last = o.reply
		progress = progress || o.reply.Code/100 == 2
	}
	a.left = nil
	for n, i := range asked {
		switch reply := res.Replies[n]; {
		case !reply.Temporary() || reply.Code/100 == 2 || res.Doubtful:
		case progress && reply.Code == 452: // RFC 5321, 4.5.3.1.10
			a.left, again = append(a.left, i), true
		case !progress: // another host may do better
			a.left = append(a.left, i)
		}
	}
	return again
}
