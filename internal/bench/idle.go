package bench

import (
	"context"
	"fmt"
	"sync"
	"time"
)

const pushTimeout = 10 * time.Second // for the last connection to be told

// An idler is one connection in IDLE. Owned by one goroutine.
type idler struct {
	*imapConn
	told chan<- time.Time // when EXISTS grew
}

// idle opens many connections on the mailbox, and measures how long after the
// beginning of an APPEND each of them is told.
func (b *imapBench) idle(ctx context.Context) error {
	if b.o.Idle <= 0 {
		return nil
	}
	if !b.conn.can("IDLE") {
		b.report.LeftOut = append(b.report.LeftOut, "idle connections: the server does not offer IDLE")
		return nil
	}
	ctx, cancel := context.WithCancel(ctx)
	var idlers sync.WaitGroup
	defer idlers.Wait()
	defer cancel() // closes the connections
	told := make(chan time.Time, b.o.Idle)
	memory := b.o.Watch.memory()
	if err := b.openIdle(ctx, &idlers, told); err != nil {
		return err
	}
	if grown := b.o.Watch.memory() - memory; memory > 0 {
		b.report.Counts = append(b.report.Counts, Count{"server octets per idle connection", grown / int64(b.o.Idle)})
	}
	return b.pushes(ctx, told)
}

func (b *imapBench) openIdle(ctx context.Context, idlers *sync.WaitGroup, told chan<- time.Time) error {
	b.meter.begin("open idle", int64(b.o.Idle))
	var h Histogram
	began := time.Now()
	for range b.o.Idle {
		at := time.Now()
		i, err := b.openIdler(ctx, told)
		if err != nil {
			return fmt.Errorf("idle connection %d: %w", h.Count()+1, err)
		}
		h.Add(time.Since(at))
		idlers.Go(func() { i.listen(ctx) })
		b.meter.done.Add(1)
	}
	b.report.Rows = append(b.report.Rows, Row{
		Name: "connect, LOGIN, SELECT, IDLE", Count: h.Count(),
		PerSecond: perSecond(h.Count(), time.Since(began)), Latency: h.Latency(),
	})
	return nil
}

func (b *imapBench) openIdler(ctx context.Context, told chan<- time.Time) (*idler, error) {
	c, err := dialIMAP(ctx, &b.o.Target, idleBuffer)
	if err != nil {
		return nil, err
	}
	if _, err = c.selectMailbox(b.mailbox); err == nil {
		err = c.idle()
	}
	if err != nil {
		c.close()
		return nil, err
	}
	c.timed.patient()
	return &idler{c, told}, nil
}

// listen ends when the connection does.
func (i *idler) listen(ctx context.Context) {
	defer i.close()
	for {
		before := i.exists
		if i.read() != nil {
			return
		}
		if i.exists <= before {
			continue
		}
		select {
		case i.told <- time.Now():
		case <-ctx.Done():
			return
		}
	}
}

func (b *imapBench) pushes(ctx context.Context, told <-chan time.Time) error {
	b.meter.begin("push", int64(b.o.Runs))
	var h, stored Histogram
	var untold int64
	for run := range b.o.Runs {
		discard(told)
		began := time.Now()
		if _, err := b.appendOne(b.conn, int64(run)); err != nil {
			return err
		}
		stored.Add(time.Since(began))
		missed, err := gather(ctx, told, b.o.Idle, began, &h)
		if err != nil {
			return err
		}
		untold += missed
		b.meter.done.Add(1)
	}
	b.report.Rows = append(b.report.Rows,
		Row{Name: "APPEND while others idle", Count: stored.Count(), Latency: stored.Latency()},
		Row{Name: "APPEND to push of EXISTS", Count: h.Count(), Latency: h.Latency()})
	b.report.Counts = append(b.report.Counts, Count{"idle connections not told", untold})
	return nil
}

// gather waits for n pushes of one APPEND and counts those that do not come.
func gather(ctx context.Context, told <-chan time.Time, n int, began time.Time, h *Histogram) (missed int64, err error) {
	timeout := time.NewTimer(pushTimeout)
	defer timeout.Stop()
	for got := range n {
		select {
		case at := <-told:
			h.Add(at.Sub(began))
		case <-timeout.C:
			return int64(n - got), nil
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
	return 0, nil
}

// discard forgets pushes that came too late for the last repetition.
func discard(told <-chan time.Time) {
	for {
		select {
		case <-told:
		default:
			return
		}
	}
}
