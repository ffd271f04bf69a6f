package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// SMTPOptions describe a run of SMTP: a closed loop, in which every connection
// sends its next message when the last was answered.
type SMTPOptions struct {
	Target
	LMTP  bool   // LHLO, and a reply for each recipient after the final dot
	Hello string // name given in EHLO; "" is localhost

	Conns           int           // connections at once; 0 is 1
	MessagesPerConn int           // then QUIT and connect anew; 0 never does
	Duration        time.Duration // stop then, or
	Messages        int64         // after so many were tried; one of the two is needed

	Sizes                SizeMix // the zero value is 4k
	From                 string
	To                   []string // used in turn
	RecipientsPerMessage int      // 0 is 1

	Pipelining bool // MAIL, RCPT and DATA in one write, where the server announces it
	Watch      Watch
}

func (o SMTPOptions) withDefaults() SMTPOptions {
	o.Target = o.Target.withDefaults()
	if o.Hello == "" {
		o.Hello = "localhost"
	}
	if o.Sizes.total == 0 {
		o.Sizes, _ = ParseSizes("4k")
	}
	o.Conns = max(o.Conns, 1)
	o.RecipientsPerMessage = max(o.RecipientsPerMessage, 1)
	return o
}

func (o SMTPOptions) check() error {
	if err := o.Target.check("SMTP"); err != nil {
		return err
	}
	switch {
	case o.Duration <= 0 && o.Messages <= 0:
		return errors.New("say how long to send, or how many messages")
	case len(o.To) == 0:
		return errors.New("no recipient given")
	case o.RecipientsPerMessage > len(o.To):
		return fmt.Errorf("%d recipients per message asked for, but only %d given", o.RecipientsPerMessage, len(o.To))
	}
	return nil
}

// SMTP sends messages and reports how they were accepted. progress may be nil.
// The clock starts when every connection had its chance to open. An error means
// that the options are wrong, that no message could even be tried, or that ctx
// ended; the report holds what was measured until then.
func SMTP(ctx context.Context, o SMTPOptions, progress func(Progress)) (Report, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return Report{}, err
	}
	m := new(meter)
	defer m.show(progress)()
	s := newSending(&o, m)
	err := s.run(ctx)
	r := newReport("smtp", o.Addr, o.conditions())
	s.report(&r)
	s.usage.perMessage(&r, s.sum.accepted)
	return r, cancelled(ctx, err)
}

// A sending is one closed loop of senders.
type sending struct {
	*composer
	o     *SMTPOptions
	meter *meter

	// delivered, where set, is told of each accepted message and the index in
	// o.To of a recipient it was accepted for. Called by many goroutines.
	delivered func(seq int64, recipient int)
	// beforeUsage, where set, runs when all is sent and before the processor
	// time of the server is read again.
	beforeUsage func(context.Context) error

	next    atomic.Int64 // number of the next message
	began   time.Time    // set before the gate opens
	until   time.Time    // likewise
	elapsed time.Duration
	usage   usage
	sum     tally // complete when run returns
}

// A tally is what one sender counts, and their sum.
type tally struct {
	accepted, recipients, bytes int64
	refused, failed, conns      int64
	transaction, ack            Histogram
	errors                      errorCounts
}

func newSending(o *SMTPOptions, m *meter) *sending {
	return &sending{composer: newComposer(o.From), o: o, meter: m}
}

// run opens the connections, lets all senders go at once, and waits for them.
func (s *sending) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	senders := make([]*sender, s.o.Conns)
	var opening, sending sync.WaitGroup
	gate := make(chan struct{})
	s.meter.begin("connect", 0)
	for i := range senders {
		senders[i] = &sender{sending: s}
		opening.Add(1)
		sending.Go(func() {
			senders[i].open(ctx)
			opening.Done()
			<-gate
			senders[i].loop(ctx)
		})
	}
	opening.Wait()
	watch, err := s.o.Watch.start()
	if err != nil {
		cancel() // before a message is sent
	}
	s.meter.begin("send", s.o.Messages)
	s.began = time.Now()
	s.until = s.began.Add(s.o.Duration)
	close(gate)
	sending.Wait()
	s.elapsed = time.Since(s.began)
	for _, sender := range senders {
		s.sum.add(&sender.tally)
	}
	if err == nil && s.beforeUsage != nil {
		err = s.beforeUsage(ctx)
	}
	s.usage = watch.stop(ctx)
	if err != nil {
		return err
	}
	return s.verdict(ctx)
}

func (s *sending) verdict(ctx context.Context) error {
	if ctx.Err() == nil && s.sum.conns == 0 {
		return fmt.Errorf("no connection could be used: %s", s.sum.errors.first())
	}
	return ctx.Err()
}

// take hands out the number of the next message, or says that it is enough.
func (s *sending) take(ctx context.Context) (int64, bool) {
	if ctx.Err() != nil || s.o.Duration > 0 && !time.Now().Before(s.until) {
		return 0, false
	}
	seq := s.next.Add(1) - 1
	return seq, s.o.Messages <= 0 || seq < s.o.Messages
}

func (t *tally) add(o *tally) {
	t.accepted += o.accepted
	t.recipients += o.recipients
	t.bytes += o.bytes
	t.refused += o.refused
	t.failed += o.failed
	t.conns += o.conns
	t.transaction.Merge(&o.transaction)
	t.ack.Merge(&o.ack)
	t.errors.merge(&o.errors)
}

// report adds the rows and counts of the sending to r.
func (s *sending) report(r *Report) {
	t := &s.sum
	r.Seconds = s.elapsed.Seconds()
	r.Rows = append(r.Rows, Row{
		Name: "accepted", Count: t.accepted, PerSecond: perSecond(t.accepted, s.elapsed),
		MBPerSecond: perSecond(t.bytes, s.elapsed) / 1e6, Latency: t.transaction.Latency(),
	}, Row{
		Name: "final dot to reply", Count: t.ack.Count(), Latency: t.ack.Latency(),
	})
	r.Counts = append(r.Counts,
		Count{"recipients accepted", t.recipients}, Count{"refused", t.refused},
		Count{"failed", t.failed}, Count{"connections", t.conns})
	r.Errors = append(r.Errors, t.errors.list()...)
}

func (o SMTPOptions) conditions() []string {
	protocol := "SMTP"
	if o.LMTP {
		protocol = "LMTP"
	}
	c := []string{protocol, "tls " + string(o.TLS), plural(o.Conns, "connection"), "sizes " + o.Sizes.String(),
		plural(len(o.To), "address", "addresses"), plural(o.RecipientsPerMessage, "recipient") + " per message"}
	if o.MessagesPerConn > 0 {
		c = append(c, plural(o.MessagesPerConn, "message")+" per connection")
	}
	if o.Pipelining {
		c = append(c, "pipelining")
	}
	return c
}
