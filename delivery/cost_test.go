package delivery_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// BenchmarkMessage is what the store, the queue, a mailbox and the trace cost for each
// message, without network and scheduling: one commit accepts some messages and delivers
// those of the commit before. writes/op counts the pages; TMPDIR says on which disk.
func BenchmarkMessage(b *testing.B) {
	for _, together := range []int{1, 5} {
		b.Run(fmt.Sprintf("together=%d", together), func(b *testing.B) {
			c := newCosts(b)
			writes, cpu := c.writes(), cpuTime()
			b.ReportAllocs()
			b.ResetTimer()
			var took []time.Duration
			for i := 0; i < b.N; i += together {
				start := time.Now()
				c.commit(min(together, b.N-i))
				took = append(took, time.Since(start))
			}
			b.StopTimer()
			n := float64(b.N)
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2])/1e3, "median-us/commit")
			b.ReportMetric(float64(c.writes()-writes)/n, "writes/op")
			b.ReportMetric(float64(cpuTime()-cpu)/1e3/n, "cpu-us/op")
			b.ReportMetric(float64(c.st.Stats().IndexOctets)/n, "index-octets/op")
		})
	}
}

type costs struct {
	testing.TB
	st        *store.Store
	queue     *spool.Spool
	boxes     *mailbox.Service
	text      []byte
	structure []byte
	accepted  []spool.Due
}

func newCosts(t testing.TB) *costs {
	st, err := store.Open(t.TempDir(), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	c := &costs{TB: t, st: st, queue: spool.Open(st, nil), boxes: mailbox.New(st, mailbox.Options{})}
	c.must(st.Update(func(tx store.Tx) error { return c.boxes.CreateDefaults(tx, 1) }))
	c.text = append([]byte("Return-Path: <anna@example.test>\r\n"+
		"Received: from client.example.test ([127.0.0.1]) by mx.example.test with ESMTP id 01;\r\n"+
		"\tMon, 1 Jan 2024 10:00:00 +0000\r\nFrom: Anna <anna@example.test>\r\nTo: Bob <bob@example.test>\r\n"+
		"Message-ID: <1234567890@example.test>\r\nDate: Mon, 1 Jan 2024 10:00:00 +0000\r\nSubject: the minutes\r\n\r\n"),
		bytes.Repeat([]byte("words and words and words again\r\n"), 110)...)
	structure, err := mime.Scan(bytes.NewReader(c.text))
	c.must(err)
	c.structure, err = structure.AppendBinary(nil)
	c.must(err)
	return c
}

func (c *costs) must(err error) {
	c.Helper()
	if err != nil {
		c.Fatal(err)
	}
}

// commit accepts n messages, and delivers those accepted by the commit before.
func (c *costs) commit(n int) {
	messages, drafts := make([]*spool.Message, n), make([]*store.Draft, n)
	for i := range n {
		drafts[i] = c.st.NewDraft()
		_, err := drafts[i].Write(c.text)
		c.must(err)
		messages[i] = &spool.Message{
			ID: drafts[i].ID(), Size: drafts[i].Size(), MessageID: "<1234567890@example.test>",
			Envelope: envelope.Envelope{From: envelope.Address{Local: "anna", Domain: "example.test"}},
			Origin:   spool.Origin{Protocol: "ESMTP", Peer: "127.0.0.1:41234", Helo: "client.example.test"},
		}
	}
	c.must(c.st.Update(func(tx store.Tx) error {
		for _, d := range c.accepted {
			if err := c.deliver(tx, d); err != nil {
				return err
			}
		}
		for _, m := range messages {
			to := envelope.Recipient{To: envelope.Address{Local: "bob", Domain: "example.test"}}
			if err := c.queue.Add(tx, m, []spool.Recipient{{Recipient: to, Account: 1}}, trace.Received); err != nil {
				return err
			}
		}
		return nil
	}, drafts...))
	var err error
	c.accepted, err = c.queue.Claim(n)
	c.must(err)
}

func (c *costs) deliver(tx store.Tx, d spool.Due) error {
	if !c.queue.Settle(tx, d) {
		return spool.ErrNotFound
	}
	placed, err := c.boxes.Add(tx, 1, "INBOX", mailbox.Arrival{Body: d.Message.ID, Size: d.Message.Size, Structure: c.structure})
	trace.Record(tx, d.Message.ID, trace.Event{
		Time: time.Now(), Kind: trace.Delivered, To: []string{d.Recipient.To.String()}, Mailbox: "bob@example.test INBOX", UID: placed.UID,
	})
	return err
}

// writes is how often this process has written to files.
func (c *costs) writes() (n int64) {
	f, err := os.Open("/proc/self/io")
	c.must(err)
	defer f.Close()
	all, err := io.ReadAll(f)
	c.must(err)
	_, rest, _ := strings.Cut(string(all), "syscw: ")
	_, err = fmt.Sscan(rest, &n)
	c.must(err)
	return n
}

func cpuTime() int64 {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return syscall.TimevalToNsec(u.Utime) + syscall.TimevalToNsec(u.Stime)
}
