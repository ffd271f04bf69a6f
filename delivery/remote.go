package delivery

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"time"

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
	r       *Runner
	lane    *lane
	msg     *spool.Message
	done    []outcome // one for each recipient; those in left may still change
	left    []int     // not settled: another host may take them
	probing bool      // nothing is sent, and nothing is learned from it
	mark    *mark     // nil until a transaction begins
	said    smtpc.Transcript

	reached  bool // a host was ready for a transaction, or there is none to reach
	last     envelope.Reply
	tried    int            // addresses
	closed   int            // those where a host says that it takes no mail at all
	parting  envelope.Reply // the last of them
	wait     time.Duration  // for a connection to the next of them
	trouble  error          // why hosts before have no address to try
	back     bool           // the last host is this server: those after it are no better
	sessions int
	tls      security
	damaged  error // the body cannot be read
	stopped  error // the store does not take the mark
}

// attempt tries, and tells what became of it with the destination. settle records the outcomes. m is the mark on the
// batch, if it has one.
func (r *Runner) attempt(l *lane, batch []spool.Due, m *mark) (c contact, settle func()) {
	if m != nil && !batch[0].Message.Envelope.DeliverBy.Deadline.IsZero() {
		m.wait() // a mark that came after the record of a missed deadline would stay
	}
	if batch = r.deadlines(r.hard, batch); len(batch) == 0 {
		return contact{}, func() {}
	}
	a := &attempt{r: r, lane: l, mark: m, msg: batch[0].Message}
	for i, d := range batch {
		a.done = append(a.done, outcome{due: d})
		a.left = append(a.left, i)
	}
	if err := r.guarded("send "+a.msg.ID.String(), func() error { a.run(r.hard); return nil }); err != nil {
		a.reached = true
		a.settle(r.ours("4.3.0", "this attempt failed: "+err.Error()))
	}
	return a.contact(), a.record
}

// contact is what an attempt showed of its destination.
func (a *attempt) contact() contact {
	switch {
	case a.r.hard.Err() != nil || a.stopped != nil || a.damaged != nil:
		return contact{}
	case !a.reached:
		return contact{unreached, a.last}
	case a.sessions > 0 && a.lostHost():
		return contact{troubled, a.last}
	}
	return contact{answered, a.last}
}

// record makes the outcomes durable. Of what has no answer, a damaged message waits
// for a person's eye, and what was broken off because we stop, or because the store
// refused the mark, is given back as it was.
func (a *attempt) record() {
	r := a.r
	if a.mark != nil {
		a.mark.wait() // the record takes it away: it must not come after that
	}
	damaged := errors.Is(a.damaged, store.ErrDamaged) || errors.Is(a.damaged, store.ErrNoBody)
	var told []outcome
	var open []spool.Due
	for _, o := range a.done {
		if o.reply.Code == 0 && !o.doubtful && (damaged || a.stopped != nil || r.hard.Err() != nil) {
			open = append(open, o.due)
		} else {
			told = append(told, o)
		}
	}
	if len(told) > 0 {
		told[0].dialogue = a.dialogue(told)
		r.record(r.hard, told)
	}
	switch {
	case damaged:
		r.hold(r.hard, r.ours("4.3.0", "the message cannot be read: "+a.damaged.Error()), open...)
	case a.stopped != nil:
		r.storeTrouble(r.hard, a.stopped, open...)
	case a.mark != nil:
		r.unmark(open)
	default:
		r.cfg.Spool.GiveBack(open...)
	}
}

// dialogue is what was said, for the trace. Where nothing was wrong, what came before the transaction says nothing new.
func (a *attempt) dialogue(told []outcome) string {
	all := a.said.String()
	if slices.ContainsFunc(told, func(o outcome) bool { return o.reply.Code/100 != 2 }) {
		return all
	}
	return all[max(strings.LastIndex(all, "> MAIL FROM:"), 0):]
}

// run does with the message what its route says.
func (a *attempt) run(ctx context.Context) {
	switch a.kind() {
	case Discard:
		a.discard()
	case Reject:
		a.reject()
	case HTTP:
		a.post(ctx)
	default:
		a.converse(ctx)
	}
}

func (a *attempt) kind() Kind {
	if a.lane.route == nil {
		return MX
	}
	return a.lane.route.Kind
}

// discard settles the recipients without anybody being told but the trace.
func (a *attempt) discard() {
	a.reached = true
	a.settle(a.r.ours("2.0.0", "discarded by the route "+a.lane.route.Name))
	for i := range a.done {
		a.done[i].verdict = discarded
	}
}

// reject fails the recipients with the administrator's words.
func (a *attempt) reject() {
	a.reached = true
	reply := a.r.ours("5.7.1", cmp.Or(a.lane.route.Text, "the administrator does not let mail go there"))
	reply.Code = 550
	a.settle(reply)
}

// converse sends the message by SMTP or LMTP.
func (a *attempt) converse(ctx context.Context) {
	for c := a.r.borrow(a.lane); c != nil && len(a.left) > 0; c = a.r.borrow(a.lane) {
		if !a.mayCarry(c) {
			c.conn.Close()
			continue
		}
		a.tls.policy = c.kept.policy
		c.conn.Record(&a.said)
		if a.send(c.conn, c.sent); len(a.left) > 0 && a.lostHost() { // it died while it waited; that is nobody's fault
			a.sessions, a.reached = 0, false
		}
		break
	}
	if a.finished(ctx) || a.sessions > 0 {
		return
	}
	a.connectAndSend(ctx)
	if ctx.Err() == nil {
		a.noMail()
	}
}

// lostHost reports whether the last host gave no answer of its own, so that another
// connection is worth a try.
func (a *attempt) lostHost() bool { return a.last.Code == 0 || a.last.Code == 421 }

// connectAndSend goes through the hosts of the destination and their addresses.
func (a *attempt) connectAndSend(ctx context.Context) {
	if path := a.socket(); path != "" {
		a.trySocket(ctx, path)
		return
	}
	hosts, err := a.hosts(ctx)
	if err != nil {
		a.noHost(err)
		return
	}
	if err := a.policies(ctx, hosts); err != nil {
		a.noHost(err)
		return
	}
	for _, name := range hosts.Records {
		host, err := a.approach(ctx, name)
		if err != nil {
			a.trouble = worse(a.trouble, err)
			if errors.Is(err, errLoop) {
				break
			}
			continue
		}
		a.wait = a.patience(len(host.addrs.Records))
		for _, ip := range host.addrs.Records {
			if a.tryAddress(ctx, host.name, ip); a.finished(ctx) {
				return
			}
		}
	}
	if !a.bounced() && a.tried == 0 {
		a.noHost(a.trouble)
	}
}

func (a *attempt) finished(ctx context.Context) bool {
	return len(a.left) == 0 || a.damaged != nil || a.stopped != nil || a.back || a.tried >= maxAddresses || a.sessions >= maxSessions || ctx.Err() != nil
}

// noHost settles recipients whose destination has no host to connect to.
func (a *attempt) noHost(err error) {
	if e, ok := errors.AsType[*insecure](err); ok {
		a.settle(e.reply(a.r))
		return
	}
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
		a.back = true
		if a.tried == 1 { // else a better host, which does not answer now, has been noted
			a.noHost(worse(errLoop, a.trouble))
		}
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
// defers.
func (a *attempt) refusedAtDoor(err error) {
	reply := a.r.ours("4.4.1", err.Error())
	if e, ok := errors.AsType[*insecure](err); ok {
		reply = e.reply(a.r)
	} else if e, ok := errors.AsType[*smtpc.Error](err); ok {
		reply.Text, reply.From = envelope.Sanitize(e.Error(), 1000), e.Reply.From
		reply.Enhanced = "4.4.2"
		if e.Reply.Code == 521 || e.Reply.Code == 556 {
			a.closed++
			a.parting = e.Reply
		}
	} else {
		a.said.Note(err.Error())
	}
	a.note(reply)
}

// noMail fails recipients when every host says that it takes no mail at all (RFC 7504, 4). As long as one of them did not
// answer, or could not be looked up, what the others say of themselves ends nothing.
func (a *attempt) noMail() {
	if a.closed > 0 && a.closed == a.tried && a.sessions == 0 && !dns.Temporary(a.trouble) {
		a.reached = true
		a.settle(a.parting)
	}
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
		if a.refuse(conn); len(a.left) == 0 {
			break
		}
		sent++
		if !a.transact(conn) {
			break
		}
	}
	conn.Record(nil)
	a.r.keep(a.lane, &idleConn{conn: conn, sent: sent, kept: a.kept()})
}

// refuse settles recipients for whom the next hop does not promise what their sender asked for.
func (a *attempt) refuse(conn *smtpc.Conn) {
	if a.final() {
		return
	}
	a.left = slices.DeleteFunc(a.left, func(i int) bool {
		o := &a.done[i]
		reply := mayRelay(conn, &a.msg.Envelope, &o.due.Recipient.Recipient, a.r.cfg.Now())
		if reply.Code == 0 {
			return false
		}
		o.reply, o.tls = reply, conn.TLS()
		return true
	})
}

// final reports whether the next hop is the end of the message's way.
func (a *attempt) final() bool { return a.kind() == LMTP || a.kind() == HTTP }

// markSending is smtpc.Message.Before of each transaction: begun by the first, the mark is durable when it returns nil.
func (a *attempt) markSending() func() error {
	if a.mark == nil {
		var due []spool.Due
		for _, i := range a.left {
			due = append(due, a.done[i].due)
		}
		a.mark = a.r.mark(due)
	}
	return a.mark.wait
}

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
		o.keeps, o.final = conn.Offers("DELIVERBY"), a.final()
		o.doubtful, o.refused = res.Doubtful && o.reply.Code == 0, res.Own[n]
		a.last = o.reply
		progress = progress || o.reply.Code/100 == 2
	}
	a.stopped = res.Stopped
	return a.remain(asked, &res, progress)
}

// remain leaves those who have no final word yet, and reports whether that is for another transaction with the same host. In
// that nobody waits for those who were asked in vain: they may hear "later" for days.
func (a *attempt) remain(asked []int, res *smtpc.Result, progress bool) (again bool) {
	a.left = nil
	for n, i := range asked {
		switch reply := res.Replies[n]; {
		case !reply.Temporary() || reply.Code/100 == 2 || res.Doubtful:
		case res.PutOff[n], progress && reply.Code == 452: // RFC 9422, 4; RFC 5321, 4.5.3.1.10
			a.left, again = append(a.left, i), true
		case !progress && !slices.Contains(res.PutOff, true): // another host may do better
			a.left = append(a.left, i)
		}
	}
	return again
}
