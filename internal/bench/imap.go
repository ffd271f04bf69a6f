package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// IMAPOptions describe a run of IMAP.
type IMAPOptions struct {
	Target
	Mailbox  string // made when missing; "" is bench
	Messages int64  // append until the mailbox holds so many
	Conns    int    // that append at once; 0 is 10
	Sizes    SizeMix
	Runs     int // repetitions of each row; 0 is 3
	Idle     int // connections for the idle row; 0 leaves it out
	Watch    Watch
}

func (o IMAPOptions) withDefaults() IMAPOptions {
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Minute // a SEARCH is silent for long
	}
	o.Target = o.Target.withDefaults()
	if o.Mailbox == "" {
		o.Mailbox = "bench"
	}
	if o.Sizes.total == 0 {
		o.Sizes, _ = ParseSizes("4k")
	}
	if o.Conns <= 0 {
		o.Conns = 10
	}
	o.Runs = max(o.Runs, 1)
	return o
}

func (o IMAPOptions) check() error {
	if err := o.Target.check("IMAP"); err != nil {
		return err
	}
	if o.User == "" {
		return errors.New("no user given to log in with")
	}
	return nil
}

// Words that one in rareEvery messages holds, in its Subject and in its text.
const (
	rareSubject = "quagga"
	rareText    = "axolotl"
	rareEvery   = 1000
)

const (
	threadLength = 8 // messages in a thread
	aloneShare   = 5 // one in so many messages is appended on one connection alone
)

// IMAP fills a mailbox and then times what mail clients do with a large one, row
// by row, each row Runs times on one connection. The mailbox stays, so that a
// second run skips the filling; the idle row adds a message for each repetition.
func IMAP(ctx context.Context, o IMAPOptions, progress func(Progress)) (Report, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return Report{}, err
	}
	mailbox, err := quote(o.Mailbox)
	if err != nil {
		return Report{}, fmt.Errorf("mailbox %q: %w", o.Mailbox, err)
	}
	m := new(meter)
	defer m.show(progress)()
	r := newReport("imap", o.Addr, o.conditions())
	b := &imapBench{o: &o, meter: m, mailbox: mailbox, report: &r, composer: newComposer("bench@example.test")}
	began := time.Now()
	err = b.run(ctx)
	r.Seconds = time.Since(began).Seconds()
	return r, cancelled(ctx, err)
}

func (o IMAPOptions) conditions() []string {
	return []string{"tls " + string(o.TLS), "mailbox " + o.Mailbox, plural(o.Conns, "connection") + " appending",
		"sizes " + o.Sizes.String(), "rows repeated " + plural(o.Runs, "time")}
}

// An imapBench is one run. Its rows share one connection.
type imapBench struct {
	*composer
	o       *IMAPOptions
	meter   *meter
	mailbox string // quoted
	report  *Report
	conn    *imapConn
}

func (b *imapBench) run(ctx context.Context) error {
	c, err := dialIMAP(ctx, &b.o.Target, imapBuffer)
	if err != nil {
		return err
	}
	b.conn = c
	defer func() { b.conn.logout() }()
	if err := b.openMailbox(); err != nil {
		return err
	}
	if err := b.fill(ctx); err != nil {
		return err
	}
	b.report.Counts = append(b.report.Counts, Count{"messages", b.conn.exists})
	if err := b.rows(ctx); err != nil {
		return err
	}
	return b.idle(ctx)
}

// openMailbox selects the mailbox and creates it when it cannot be selected.
func (b *imapBench) openMailbox() error {
	_, err := b.conn.selectMailbox(b.mailbox)
	if _, no := errors.AsType[*errNo](err); !no {
		return err
	}
	if err := b.conn.command("CREATE "+b.mailbox, nil); err != nil {
		return err
	}
	_, err = b.conn.selectMailbox(b.mailbox)
	return err
}

// fill appends what is missing: a part of it on one connection, and the rest on several.
func (b *imapBench) fill(ctx context.Context) error {
	from := b.conn.exists
	need := b.o.Messages - from
	if need <= 0 {
		return nil
	}
	alone := need / aloneShare
	if b.o.Conns == 1 {
		alone = need
	}
	err := b.fillBy(ctx, 1, from, from+alone)
	if err == nil {
		err = b.fillBy(ctx, b.o.Conns, from+alone, b.o.Messages)
	}
	if err != nil {
		return err
	}
	return b.openMailbox()
}

// fillBy appends messages on some connections. The report's processor time and flushes are those of the last such row.
func (b *imapBench) fillBy(ctx context.Context, conns int, from, to int64) error {
	if from == to {
		return nil
	}
	f := &filling{imapBench: b, to: to, conns: make([]*imapConn, conns)}
	f.next.Store(from)
	if err := f.connect(ctx); err != nil {
		return err
	}
	defer f.logout() // after the counting, which a process that ends would confuse
	watch, err := b.o.Watch.start()
	if err != nil {
		return err
	}
	name := "APPEND, " + plural(conns, "connection")
	b.meter.begin(name, to-from)
	began := time.Now()
	err = f.run()
	elapsed := time.Since(began)
	b.report.Rows = append(b.report.Rows, Row{
		Name: name, Count: f.latency.Count(), PerSecond: perSecond(f.latency.Count(), elapsed),
		MBPerSecond: perSecond(f.bytes, elapsed) / 1e6, Latency: f.latency.Latency(),
	})
	watch.stop(ctx).perMessage(b.report, f.latency.Count())
	return err
}

// A filling appends on several connections at once.
type filling struct {
	*imapBench
	to    int64
	conns []*imapConn
	next  atomic.Int64

	mu      sync.Mutex // guards what follows
	latency Histogram
	bytes   int64
	err     error
}

func (f *filling) connect(ctx context.Context) error {
	for i := range f.conns {
		c, err := dialIMAP(ctx, &f.o.Target, imapBuffer)
		if err != nil {
			for _, open := range f.conns[:i] {
				open.close()
			}
			return err
		}
		f.conns[i] = c
	}
	return nil
}

func (f *filling) run() error {
	var all sync.WaitGroup
	for _, c := range f.conns {
		all.Go(func() { f.appendOn(c) })
	}
	all.Wait()
	return f.err
}

func (f *filling) logout() {
	for _, c := range f.conns {
		c.logout()
	}
}

func (f *filling) appendOn(c *imapConn) {
	var latency Histogram
	var bytes int64
	var err error
	for seq := f.next.Add(1) - 1; seq < f.to && err == nil; seq = f.next.Add(1) - 1 {
		began := time.Now()
		var n int
		if n, err = f.appendOne(c, seq); err == nil {
			latency.Add(time.Since(began))
			bytes += int64(n)
			f.meter.done.Add(1)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.latency.Merge(&latency)
	f.bytes += bytes
	f.err = errors.Join(f.err, err)
}

// appendOne stores message seq; one in rareEvery holds the rare words, and each answers the one before it within a
// thread.
func (b *imapBench) appendOne(c *imapConn, seq int64) (size int, err error) {
	d := draft{
		seq: seq, start: b.sent(seq), to: "bench@example.test", subject: "bench message ",
		thread: seq - seq%threadLength, answers: seq%threadLength > 0,
	}
	if seq%rareEvery == 0 {
		d.subject, d.opening = "bench "+rareSubject+" ", "here is an "+rareText
	}
	header := b.header(nil, &d)
	body := bodyLength(b.o.Sizes.of(seq), len(header))
	err = c.appendMessage(b.mailbox, len(header)+body, func(w *bufio.Writer) error {
		w.Write(header)
		return b.writeBody(w, seq, body)
	})
	return len(header) + body, err
}

// A timed is what one row does. What goes before and after each repetition is not
// timed.
type timed struct {
	name   string
	needs  string // a capability without which the row is left out
	before func() error
	do     func(context.Context) (answers int64, err error)
	after  func() error
}

func (b *imapBench) rows(ctx context.Context) error {
	if b.conn.exists == 0 {
		return errors.New("the mailbox is empty; say how many messages to append")
	}
	for _, t := range b.table() {
		if t.needs != "" && !b.conn.can(t.needs) {
			b.report.LeftOut = append(b.report.LeftOut, fmt.Sprintf("%s: the server does not offer %s", t.name, t.needs))
			continue
		}
		if err := b.row(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (b *imapBench) table() []timed {
	return []timed{
		{name: "connect, LOGIN, SELECT", do: b.reconnect},
		b.fetch("FETCH 1:* (FLAGS)"),
		b.fetch("FETCH 1:* (ENVELOPE)"),
		b.fetch("FETCH 1:* (BODYSTRUCTURE)"),
		b.fetch("FETCH 1:* (BODY.PEEK[HEADER.FIELDS (FROM SUBJECT DATE)])"),
		b.fetch("FETCH 1:* (BODY.PEEK[])"),
		b.search("SEARCH SUBJECT " + rareSubject),
		b.search("SEARCH TEXT " + rareText),
		b.sort("SORT (DATE) US-ASCII ALL"),
		b.sort("SORT (SUBJECT) US-ASCII ALL"),
		b.thread(),
		b.store(),
		b.copy(),
		b.expunge(),
	}
}

// row repeats t. A server that answers NO gets an error line and no row.
func (b *imapBench) row(ctx context.Context, t timed) error {
	b.meter.begin(t.name, int64(b.o.Runs))
	var sum rowSum
	for range b.o.Runs {
		if err := b.repetition(ctx, t, &sum); err != nil {
			return b.rowFailed(t, err)
		}
		b.meter.done.Add(1)
	}
	b.report.Rows = append(b.report.Rows, Row{
		Name: t.name, Count: sum.count, PerSecond: perSecond(sum.count*int64(b.o.Runs), sum.took),
		MBPerSecond: perSecond(sum.bytes, sum.took) / 1e6, Latency: sum.latency.Latency(),
		ServerCPU: millis(sum.server) / float64(b.o.Runs),
	})
	return nil
}

// A rowSum adds up the repetitions of a row; count is that of the last.
type rowSum struct {
	latency      Histogram
	took, server time.Duration
	count, bytes int64
}

func (b *imapBench) repetition(ctx context.Context, t timed, sum *rowSum) error {
	if t.before != nil {
		if err := t.before(); err != nil {
			return err
		}
	}
	watch, err := b.o.Watch.processesOnly().start()
	if err != nil {
		return err
	}
	read, began := b.conn.bytes, time.Now()
	if sum.count, err = t.do(ctx); err != nil {
		return err
	}
	took := time.Since(began)
	sum.latency.Add(took)
	sum.took += took
	sum.bytes += max(b.conn.bytes-read, 0)
	sum.server += watch.stop(ctx).server
	if t.after != nil {
		return t.after()
	}
	return nil
}

// rowFailed notes a refusal, after which the next row can go on.
func (b *imapBench) rowFailed(t timed, err error) error {
	if _, no := errors.AsType[*errNo](err); !no {
		return fmt.Errorf("%s: %w", t.name, err)
	}
	b.meter.errors.Add(1)
	b.report.Errors = append(b.report.Errors, ErrorCount{Where: t.name, Count: 1, Sample: err.Error()})
	return nil
}

func (b *imapBench) reconnect(ctx context.Context) (int64, error) {
	b.conn.logout()
	c, err := dialIMAP(ctx, &b.o.Target, imapBuffer)
	if err != nil {
		return 0, err
	}
	b.conn = c
	_, err = c.selectMailbox(b.mailbox)
	return 1, err
}

func (b *imapBench) fetch(line string) timed {
	return timed{name: line, do: func(context.Context) (int64, error) { return b.fetches(line) }}
}

// fetches runs a command and counts its FETCH responses.
func (b *imapBench) fetches(line string) (n int64, err error) {
	err = b.conn.command(line, func() {
		if _, what, ok := b.conn.numbered(); ok && bytes.HasPrefix(what, []byte("FETCH ")) {
			n++
		}
	})
	return n, err
}

// search counts the messages found.
func (b *imapBench) search(line string) timed {
	return timed{name: line, do: func(context.Context) (int64, error) { return b.numbers(line, "* SEARCH") }}
}

// numbers runs a command and counts the numbers of an untagged response.
func (b *imapBench) numbers(line, response string) (n int64, err error) {
	err = b.conn.command(line, func() {
		if bytes.HasPrefix(b.conn.text, []byte(response)) {
			n += b.conn.words - 2
		}
	})
	return n, err
}

func (b *imapBench) sort(line string) timed {
	return timed{name: line, needs: "SORT", do: func(context.Context) (int64, error) { return b.numbers(line, "* SORT") }}
}

// thread counts the response as one answer: what it holds is not looked at.
func (b *imapBench) thread() timed {
	const line = "THREAD REFERENCES US-ASCII ALL"
	return timed{name: line, needs: "THREAD=REFERENCES", do: func(context.Context) (int64, error) { return 1, b.conn.command(line, nil) }}
}

func (b *imapBench) store() timed {
	return timed{
		name:  `STORE 1:* +FLAGS (\Flagged)`,
		do:    func(context.Context) (int64, error) { return b.fetches(`STORE 1:* +FLAGS (\Flagged)`) },
		after: func() error { return b.conn.command(`STORE 1:* -FLAGS.SILENT (\Flagged)`, nil) },
	}
}

// copy copies all into a mailbox that is made for it and removed again.
func (b *imapBench) copy() timed {
	into := b.beside("-copy")
	return timed{
		name:   "COPY 1:*",
		before: func() error { return b.conn.command("CREATE "+into, nil) },
		do:     func(context.Context) (int64, error) { return b.conn.exists, b.conn.command("COPY 1:* "+into, nil) },
		after:  func() error { return b.conn.command("DELETE "+into, nil) },
	}
}

// beside is the quoted name of a mailbox beside the one that is filled.
func (b *imapBench) beside(suffix string) string {
	name, _ := quote(b.o.Mailbox + suffix) // the mailbox was quoted without an error
	return name
}

// expunge removes every second message of a copy that is made for it.
func (b *imapBench) expunge() timed {
	from := b.beside("-expunge")
	return timed{
		name:   "EXPUNGE every second",
		before: func() error { return b.deleteHalf(from) },
		do: func(context.Context) (n int64, err error) {
			err = b.conn.command("EXPUNGE", func() {
				if _, what, ok := b.conn.numbered(); ok && bytes.Equal(what, []byte("EXPUNGE")) {
					n++
				}
			})
			return n, err
		},
		after: func() error {
			if err := b.openMailbox(); err != nil {
				return err
			}
			return b.conn.command("DELETE "+from, nil)
		},
	}
}

// deleteHalf selects a copy of the mailbox in which every second message has \Deleted.
func (b *imapBench) deleteHalf(name string) error {
	for _, line := range []string{"CREATE " + name, "COPY 1:* " + name} {
		if err := b.conn.command(line, nil); err != nil {
			return err
		}
	}
	if _, err := b.conn.selectMailbox(name); err != nil {
		return err
	}
	const inOne = 500 // numbers, so that the line suits any server
	for first := int64(1); first <= b.conn.exists; first += 2 * inOne {
		set := strconv.AppendInt(nil, first, 10)
		for n := first + 2; n < first+2*inOne && n <= b.conn.exists; n += 2 {
			set = strconv.AppendInt(append(set, ','), n, 10)
		}
		if err := b.conn.command("STORE "+string(set)+` +FLAGS.SILENT (\Deleted)`, nil); err != nil {
			return err
		}
	}
	return nil
}
