package postroad_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"time"

	"postroad/internal/control"
)

// In TestCrash an administrator gives orders about mail that goes out. What was told is done must be so after the kill; of the
// order under way, either will do.

const crashSups = 12

func supAddress(n int) string { return fmt.Sprintf("s%d@%s", n, farSup) }

// crashOrders is what the administrator knows. campaign.mu guards it.
type crashOrders struct {
	suspended  bool
	rule       bool // there is a hold rule
	change     int  // how often that has changed, and begun to change
	suppressed map[string]bool
	touched    map[string]bool   // addresses whose suppression was changed, or begun to be, in this life
	done       map[string]string // what was done to messages on hold, by sequence id
	maybe      map[string]bool   // orders to which there was no answer
}

func newCrashOrders() *crashOrders {
	return &crashOrders{suppressed: map[string]bool{}, touched: map[string]bool{}, done: map[string]string{}, maybe: map[string]bool{}}
}

// operator gives orders until the server is gone.
func (c *campaign) operator(p *process, rnd *rand.Rand) {
	admin, err := control.Dial(p.Control)
	if err != nil {
		return
	}
	defer admin.Close()
	orders := []func(*control.Client, *rand.Rand) error{c.orderPark, c.orderRule, c.orderSuppression, c.orderHeld, c.orderHeld, c.orderHeld, c.orderRetry}
	for {
		if err := orders[rnd.IntN(len(orders))](admin, rnd); err != nil {
			if !c.killed.Load() {
				c.t.Errorf("an order: %v", err)
			}
			return
		}
		<-time.After(time.Millisecond)
	}
}

// order gives an order, and then notes that it was done.
func (c *campaign) order(name string, give func() error, done func(*crashOrders)) error {
	c.note(func(o *crashOrders) { o.maybe[name] = true })
	if err := give(); err != nil {
		return err
	}
	c.note(func(o *crashOrders) { delete(o.maybe, name); done(o) })
	return nil
}

func (c *campaign) note(fn func(*crashOrders)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fn(c.orders)
}

func (c *campaign) orderPark(admin *control.Client, _ *rand.Rand) error {
	suspend := !c.orders.suspended
	return c.order("park", func() (err error) {
		if suspend {
			_, err = admin.SuspendDestination(context.Background(), control.SuspendDestination{Name: farPark})
		} else {
			_, err = admin.ResumeDestination(context.Background(), farPark)
		}
		return err
	}, func(o *crashOrders) { o.suspended = suspend })
}

func (c *campaign) orderRule(admin *control.Client, rnd *rand.Rand) error {
	if c.orders.rule && rnd.IntN(3) > 0 {
		return nil
	}
	rule := !c.orders.rule
	c.note(func(o *crashOrders) { o.change++ })
	return c.order("rule", func() (err error) {
		if rule {
			_, err = admin.AddHoldRule(context.Background(), control.HoldRule{Recipient: "@" + farHold})
			return err
		}
		return removeRules(context.Background(), admin)
	}, func(o *crashOrders) { o.rule = rule; o.change++ })
}

func removeRules(ctx context.Context, admin *control.Client) error {
	for r, err := range admin.HoldRules(ctx) {
		if err == nil {
			err = admin.RemoveHoldRule(ctx, r.Number)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// orderSuppression changes whether an address is suppressed, each once in a life: what was sent to it after that has one end.
func (c *campaign) orderSuppression(admin *control.Client, rnd *rand.Rand) error {
	addr := supAddress(rnd.IntN(crashSups))
	if c.orders.touched[addr] {
		return nil
	}
	suppress := !c.orders.suppressed[addr]
	c.note(func(o *crashOrders) { o.touched[addr] = true })
	return c.order(addr, func() (err error) {
		if suppress {
			_, err = admin.AddSuppression(context.Background(), control.NewSuppression{Account: receiver(0), Address: addr})
			return err
		}
		return admin.RemoveSuppression(context.Background(), control.Suppression{Account: receiver(0), Address: addr})
	}, func(o *crashOrders) { o.suppressed[addr] = suppress })
}

// orderHeld does something to a message that is on hold.
func (c *campaign) orderHeld(admin *control.Client, rnd *rand.Rand) error {
	var held []control.QueueEntry
	for e, err := range admin.Queue(context.Background(), control.QueueFilter{Domain: farHold, State: "hold", Limit: 5}) {
		if err != nil {
			return err
		}
		held = append(held, e)
	}
	if len(held) == 0 {
		return nil
	}
	e := held[rnd.IntN(len(held))]
	id, seq := e.ID, crashSeq(e.MessageID)
	one := control.QueueFilter{IDs: []string{id}, Domain: farHold, State: "hold"}
	name := []string{"bounced", "rerouted", "released"}[rnd.IntN(3)]
	var changed control.Changed
	return c.order(name+" "+seq, func() (err error) {
		switch name {
		case "bounced":
			changed, err = admin.BounceQueue(context.Background(), control.BounceQueue{QueueFilter: one, Reason: "by order"})
		case "rerouted":
			changed, err = admin.RerouteQueue(context.Background(), control.RerouteQueue{QueueFilter: one, Route: farSpare})
		case "released":
			changed, err = admin.ReleaseQueue(context.Background(), one)
		}
		return err
	}, func(o *crashOrders) {
		if changed.Recipients != 1 {
			c.t.Errorf("%s was %s: %d recipients", id, name, changed.Recipients)
		}
		o.done[seq] += name + " "
	})
}

func (c *campaign) orderRetry(admin *control.Client, _ *rand.Rand) error {
	_, err := admin.RetryQueue(context.Background(), control.QueueFilter{State: "deferred"})
	return err
}

// expect says what must become of a recipient of a message that is about to be sent. mu must be held.
func (o *crashOrders) expect(addr string) string {
	switch farDomain(addr) {
	case farGone:
		return "bounced or suppressed"
	case farHold:
		return "relayed or bounced"
	case farSup:
		switch {
		case !o.touched[addr] || o.maybe[addr]: // it may still change
			return "relayed or suppressed"
		case o.suppressed[addr]:
			return "suppressed"
		}
	}
	return "relayed"
}

// check holds what became of a recipient against orders about it.
func (o *crashOrders) check(c *campaign, l *crashLife, to, end string) {
	c.t.Helper()
	if farDomain(to) != farHold {
		return
	}
	done := func(what string) bool { return strings.Contains(o.done[l.seq], what) }
	if done("bounced") != (end == "bounced") && !o.maybe["bounced "+l.seq] {
		c.t.Errorf("message %s (%s) for %s was %s; orders: %s", l.id, l.seq, to, end, o.done[l.seq])
	}
	for _, m := range c.came[farBox(to)+" "+l.seq] {
		if done("rerouted") != (m.by == farSpare) && !o.maybe["rerouted "+l.seq] {
			c.t.Errorf("message %s (%s) for %s went by %q; orders: %s", l.id, l.seq, to, m.by, o.done[l.seq])
		}
	}
}

// auditOrders wants in a new life what was told in the one before, and then lets all mail go.
func (c *campaign) auditOrders(admin *control.Client) {
	c.t.Helper()
	c.auditSuspension(admin)
	c.auditRule(admin)
	c.auditSuppressions(admin)
	if c.orders.suspended {
		eventually(c.t, "a queue with nothing that may go", func() bool { return c.onlyStopped(admin) })
		if c.far.lastDialed("u@"+farPark) == c.far.now() {
			c.t.Errorf("%s is suspended, and was dialed", farPark)
		}
	}
	must := func(err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	if c.orders.suspended {
		_, err := admin.ResumeDestination(c.t.Context(), farPark)
		must(err)
	}
	must(removeRules(c.t.Context(), admin))
	_, err := admin.ReleaseQueue(c.t.Context(), control.QueueFilter{State: "hold"})
	must(err)
	for _, s := range c.ledger {
		s.caught = false
	}
	c.orders.begin()
}

// begin is for a new life, in which no order stands but of suppressed addresses.
func (o *crashOrders) begin() {
	o.suspended, o.rule, o.change = false, false, 0
	clear(o.touched)
	maps.DeleteFunc(o.maybe, func(name string, _ bool) bool { return !strings.Contains(name, " ") })
}

func (c *campaign) auditSuspension(admin *control.Client) {
	c.t.Helper()
	suspended := false
	for d, err := range admin.Destinations(c.t.Context(), "") {
		if err != nil {
			c.t.Fatal(err)
		}
		suspended = suspended || d.Name == farPark && !d.Suspended.IsZero()
	}
	if suspended != c.orders.suspended && !c.orders.maybe["park"] {
		c.t.Errorf("%s is suspended: %t, want %t", farPark, suspended, c.orders.suspended)
	}
	c.orders.suspended = suspended
}

// auditRule wants the hold rule, and that it has caught what was sent while it was there.
func (c *campaign) auditRule(admin *control.Client) {
	c.t.Helper()
	rules := 0
	for _, err := range admin.HoldRules(c.t.Context()) {
		if err != nil {
			c.t.Fatal(err)
		}
		rules++
	}
	if (rules == 1) != c.orders.rule && !c.orders.maybe["rule"] || rules > 1 {
		c.t.Errorf("there are %d hold rules, want one: %t", rules, c.orders.rule)
	}
	held := map[string]bool{}
	for e, err := range admin.Queue(c.t.Context(), control.QueueFilter{Domain: farHold, State: "hold"}) {
		if err != nil {
			c.t.Fatal(err)
		}
		held[crashSeq(e.MessageID)] = true
	}
	for id, s := range c.ledger {
		if s.caught && !held[id] && !c.orders.about(id) {
			c.t.Errorf("message %s was sent under a hold rule, and is not on hold", id)
		}
	}
}

// about reports whether there was an order that takes a message off hold.
func (o *crashOrders) about(seq string) bool {
	for _, order := range []string{"bounced", "released"} {
		if o.maybe[order+" "+seq] || strings.Contains(o.done[seq], order) {
			return true
		}
	}
	return false
}

// crashSeq is the sequence id of a message.
func crashSeq(messageID string) string {
	return strings.TrimSuffix(strings.Trim(messageID, "<>"), "@crash.test")
}

func (c *campaign) auditSuppressions(admin *control.Client) {
	c.t.Helper()
	there, refused := map[string]bool{}, map[string]bool{}
	for s, err := range admin.Suppressions(c.t.Context(), receiver(0)) {
		switch {
		case err != nil:
			c.t.Fatal(err)
		case farDomain(s.Address) == farSup:
			there[s.Address] = true
		case farDomain(s.Address) == farGone:
			refused[s.Address] = true
		}
	}
	for n := range crashSups {
		addr := supAddress(n)
		if there[addr] != c.orders.suppressed[addr] && !c.orders.maybe[addr] {
			c.t.Errorf("%s is suppressed: %t, want %t", addr, there[addr], c.orders.suppressed[addr])
		}
	}
	for addr, life := range c.refused {
		if !refused[addr] || c.far.lastDialed(addr) > life {
			c.t.Errorf("%s has been refused in life %d; it is suppressed: %t; it was dialed in life %d", addr, life, refused[addr], c.far.lastDialed(addr))
		}
	}
	for addr := range refused {
		if _, known := c.refused[addr]; !known {
			c.refused[addr] = c.far.now()
		}
	}
	c.orders.suppressed = there
}

// onlyStopped reports whether all that is in the queue waits for an order, or for its time.
func (c *campaign) onlyStopped(admin *control.Client) bool {
	c.t.Helper()
	now := time.Now()
	for e, err := range admin.Queue(c.t.Context(), control.QueueFilter{}) {
		if err != nil {
			c.t.Fatal(err)
		}
		for _, r := range e.Recipients {
			if r.State != "hold" && farDomain(r.To) != farPark && !e.Asked.Release.After(now) {
				c.retry()
				return false
			}
		}
	}
	return true
}
