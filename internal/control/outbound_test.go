package control

import (
	"context"
	"iter"
	"time"
)

func (echo) HoldQueue(_ context.Context, h HoldQueue) (Changed, error) {
	return Changed{Recipients: len(h.IDs) + len(h.Reason)}, fails(h.Sender)
}
func (echo) ExpireQueue(_ context.Context, f QueueFilter) (Changed, error) {
	return Changed{Recipients: len(f.Account)}, fails(f.Sender)
}
func (echo) BounceQueue(_ context.Context, b BounceQueue) (Changed, error) {
	return Changed{Recipients: len(b.Reason)}, fails(b.Destination)
}
func (echo) RerouteQueue(_ context.Context, r RerouteQueue) (Changed, error) {
	return Changed{Recipients: len(r.IDs)}, fails(r.Route)
}
func (echo) EditQueue(_ context.Context, e EditQueue) (Changed, error) {
	return Changed{Recipients: len(e.IDs)}, fails(e.TLS)
}
func (echo) ExplainQueue(_ context.Context, id string) (Explanation, error) {
	return Explanation{ID: id, Recipients: []RecipientExplanation{{
		QueueRecipient: QueueRecipient{To: id, Route: "r", Reason: "h"}, Why: []string{"a", "b"},
		Destination: &Destination{Name: "d", Limit: 3, DeadUntil: born, TLS: []string{"x"}},
	}}}, fails(id)
}
func (echo) Destinations(_ context.Context, n string) iter.Seq2[Destination, error] {
	return seq(n, Destination{Name: n, Suspended: born}, Destination{Reply: "r"})
}
func (echo) SuspendDestination(_ context.Context, s SuspendDestination) (Destination, error) {
	return Destination{Name: s.Name, Reason: s.Reason}, fails(s.Name)
}
func (echo) ResumeDestination(_ context.Context, n string) (Changed, error) {
	return Changed{Recipients: len(n)}, fails(n)
}
func (echo) ForgetDestination(_ context.Context, n string) error { return fails(n) }
func (echo) HoldRules(context.Context) iter.Seq2[HoldRule, error] {
	return seq("good", HoldRule{Number: 7, Since: born}, HoldRule{Sender: "s"})
}
func (echo) AddHoldRule(_ context.Context, h HoldRule) (HoldRule, error) { return h, fails(h.Reason) }
func (echo) RemoveHoldRule(_ context.Context, number uint64) error {
	if number == 3 {
		return fails("bad")
	}
	return nil
}
func (echo) Suppressions(_ context.Context, a string) iter.Seq2[Suppression, error] {
	return seq(a, Suppression{Account: a, Since: born}, Suppression{Until: born})
}
func (echo) AddSuppression(_ context.Context, n NewSuppression) (Suppression, error) {
	return Suppression{Account: n.Account, Address: n.Address, Until: born.Add(time.Duration(n.For)), Reply: n.Reason}, fails(n.Address)
}
func (echo) RemoveSuppression(_ context.Context, s Suppression) error { return fails(s.Address) }

func (echo) Probe(_ context.Context, q ProbeQuery) (Probe, error) {
	return Probe{Domain: q.To, Verdict: q.From, Hosts: []ProbeHost{{Name: "h", Calls: []ProbeCall{{TLS: "t"}}}}}, fails(q.To)
}

// outbound adds what goes out to a transcript.
func outbound(ctx context.Context, svc Service, n string, say func(string, ...any), one func(string) func(any, error)) {
	f := QueueFilter{IDs: []string{"1"}, Sender: n, Destination: n, Account: "a"}
	c, err := svc.HoldQueue(ctx, HoldQueue{f, "why"})
	one("hold")(c, err)
	c, err = svc.ExpireQueue(ctx, f)
	one("expire")(c, err)
	c, err = svc.BounceQueue(ctx, BounceQueue{f, "over"})
	one("bounce")(c, err)
	c, err = svc.RerouteQueue(ctx, RerouteQueue{f, n})
	one("reroute")(c, err)
	c, err = svc.EditQueue(ctx, EditQueue{f, n})
	one("edit")(c, err)
	x, err := svc.ExplainQueue(ctx, n)
	say("explain", string(raw(x)), describe(err)) // it has pointers
	drain(say, "destinations", svc.Destinations(ctx, n))
	d, err := svc.SuspendDestination(ctx, SuspendDestination{n, "why"})
	one("suspend")(d, err)
	c, err = svc.ResumeDestination(ctx, n)
	one("resume")(c, err)
	say("forget", describe(svc.ForgetDestination(ctx, n)))
	p, err := svc.Probe(ctx, ProbeQuery{n, "f"})
	one("probe")(p, err)
	drain(say, "hold rules", svc.HoldRules(ctx))
	h, err := svc.AddHoldRule(ctx, HoldRule{Sender: "s", Reason: n})
	one("add hold rule")(h, err)
	say("remove hold rule", describe(svc.RemoveHoldRule(ctx, uint64(len(n)))))
	drain(say, "suppressions", svc.Suppressions(ctx, n))
	s, err := svc.AddSuppression(ctx, NewSuppression{"a", n, Seconds(time.Hour), "why"})
	one("add suppression")(s, err)
	say("remove suppression", describe(svc.RemoveSuppression(ctx, Suppression{Account: "a", Address: n})))
}
