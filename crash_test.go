package postroad_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	"github.com/emersion/go-smtp"

	"postroad/internal/control"
)

var (
	crashRounds = flag.Int("crash.rounds", 3, "rounds of TestCrash: load, kill -9, restart, audit")
	crashSeed   = flag.Uint64("crash.seed", 0, "seed of TestCrash; 0 takes one from the clock")
)

const (
	crashReceivers = 3
	crashSenders   = 6
	crashPassword  = "crash-campaign"
	roundsPerStore = 25 // then a new data directory, so that first starts are hit too
)

// TestCrash runs the real binary under load from several senders, kills it at a
// random moment, starts it again and audits: each acknowledged message is exactly
// once in each mailbox it was for, byte for byte; one whose reply was never seen is
// there once or not at all; nothing else is there; and `check` finds nothing.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills the real server many times")
	}
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d rounds, seed %d", *crashRounds, seed)
	c := &campaign{t: t, rnd: rand.New(rand.NewPCG(seed, 1))}
	for round := range *crashRounds {
		if round%roundsPerStore == 0 {
			c.newStore(round)
		}
		c.round()
		if t.Failed() {
			t.Fatalf("round %d of seed %d; the data is in %s", round, seed, c.dir)
		}
	}
	c.finish()
	t.Logf("%d kills: %d messages acknowledged, %d of unknown fate of which %d were there; none lost, none doubled",
		c.kills, c.acked, c.unknown, c.unknownThere)
	t.Logf("%d changes by IMAP acknowledged, %d under way at a kill of which %d were done; all whole", c.did.Load(), c.underway, c.underwayDone)
}

// campaign is the test's own knowledge of what the server owes.
type campaign struct {
	t   *testing.T
	rnd *rand.Rand
	dir string

	mu     sync.Mutex
	ledger map[string]*sent // by sequence id
	seq    int
	seen   map[string]int      // mailbox and sequence id: how often this audit found it
	next   map[string]imap.UID // mailbox: where the next audit begins
	uidval map[string]uint32

	kills, acked, unknown, unknownThere int

	// Of the clients that change mailboxes, see crashWriter.
	writers                []*crashWriter
	letters                map[string]*crashLetter
	views                  map[string][]*crashView
	pasts                  map[string]*crashPast // by MAILBOXID
	shared                 map[string]string     // MAILBOXIDs
	named                  map[string]uint64     // the highest UIDVALIDITY that a name had
	did                    atomic.Int64
	killed                 atomic.Bool // or about to be
	underway, underwayDone int
}

// sent is one message that was offered to the server.
type sent struct {
	to    []string // mailboxes
	text  []byte
	acked bool
}

func (c *campaign) newStore(round int) {
	c.dir = filepath.Join(c.t.TempDir(), "data"+strconv.Itoa(round))
	c.next, c.uidval = map[string]imap.UID{}, map[string]uint32{}
	c.writers, c.letters, c.views = nil, map[string]*crashLetter{}, map[string][]*crashView{}
	c.pasts, c.shared, c.named = map[string]*crashPast{}, map[string]string{}, map[string]uint64{}
}

func receiver(i int) string { return fmt.Sprintf("r%d@example.test", i) }

func (c *campaign) start() *process {
	c.t.Helper()
	var args []string
	for i := range crashReceivers {
		args = append(args, "--user", receiver(i)+":"+crashPassword)
	}
	return launch(c.t, c.dir, args...)
}

// round is one life and death of the server, and the audit in its next life.
func (c *campaign) round() {
	c.ledger, c.seen = map[string]*sent{}, map[string]int{}
	p := c.start()
	c.imapBegin(p)
	c.load(p)
	c.kills++
	p = c.start()
	c.audit(p)
	if c.rnd.IntN(5) == 0 {
		p.stop() // now and then a clean stop instead of a second crash
	} else {
		p.kill()
	}
}

// finish checks the last store once more after a clean stop.
func (c *campaign) finish() {
	c.ledger, c.seen = map[string]*sent{}, map[string]int{}
	p := c.start()
	c.audit(p)
	p.stop()
}

// load runs the senders until the kill: when a random number of messages has been
// acknowledged, and a random moment more has passed.
func (c *campaign) load(p *process) {
	after := int64(c.rnd.IntN(120))
	moment := time.Duration(c.rnd.IntN(8000)) * time.Microsecond
	c.killed.Store(false)
	var acks atomic.Int64
	reached := make(chan struct{})
	acknowledged := func() {
		if acks.Add(1) == after+1 {
			close(reached)
		}
	}
	var senders sync.WaitGroup
	for i := range crashSenders {
		work := c.smtpSender
		if i == 0 {
			work = c.imapAppender
		}
		rnd := rand.New(rand.NewPCG(c.rnd.Uint64(), uint64(i)))
		senders.Go(func() { work(p, rnd, acknowledged) })
	}
	c.imapLoad(p, &senders, func() { c.did.Add(1); acknowledged() })
	select {
	case <-reached:
	case <-time.After(time.Minute):
		c.t.Errorf("%d messages in a minute\n%s", acks.Load(), p.logText())
	}
	<-time.After(moment)
	c.killed.Store(true)
	p.kill()
	senders.Wait()
}

// offer enters a new message into the ledger before its first octet is sent.
func (c *campaign) offer(rnd *rand.Rand, mailboxes ...string) (string, *sent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	id := strconv.Itoa(c.seq)
	s := &sent{to: mailboxes, text: crashMessage(id, rnd)}
	c.ledger[id] = s
	return id, s
}

// crashMessage is a message of 300 octets to 20 KB, now and then of 300 KB.
func crashMessage(id string, rnd *rand.Rand) []byte {
	size := 300 + rnd.IntN(20_000)
	if rnd.IntN(20) == 0 {
		size = 300_000
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <s@example.test>\r\nTo: <r@example.test>\r\nMessage-ID: <%s@crash.test>\r\nX-Seq: %s\r\nSubject: crash %s\r\n\r\n", id, id, id)
	for n := 0; b.Len() < size; n++ {
		sum := sha256.Sum256([]byte(id + strconv.Itoa(n)))
		b.WriteString(hex.EncodeToString(sum[:]) + "\r\n")
	}
	return b.Bytes()
}

func (c *campaign) settle(s *sent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.acked = true
}

// smtpSender sends messages over connections of a few each until the server is gone.
func (c *campaign) smtpSender(p *process, rnd *rand.Rand, acknowledged func()) {
	for {
		client, err := smtp.Dial(p.SMTP)
		if err != nil {
			return
		}
		for range 1 + rnd.IntN(20) {
			if err = c.send(client, rnd, acknowledged); err != nil {
				break
			}
		}
		client.Close()
		if err != nil {
			return
		}
	}
}

func (c *campaign) send(client *smtp.Client, rnd *rand.Rand, acknowledged func()) error {
	var to []string
	for _, i := range rnd.Perm(crashReceivers)[:1+rnd.IntN(crashReceivers)] {
		to = append(to, receiver(i))
	}
	if err := client.Mail("s@example.net", nil); err != nil {
		return err
	}
	for _, r := range to {
		if err := client.Rcpt(r, nil); err != nil {
			return err
		}
	}
	var boxes []string
	for _, r := range to {
		boxes = append(boxes, r+" INBOX")
	}
	_, s := c.offer(rnd, boxes...)
	w, err := client.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(s.text); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	c.settle(s)
	acknowledged()
	return nil
}

// imapAppender appends messages to a mailbox until the server is gone.
func (c *campaign) imapAppender(p *process, rnd *rand.Rand, acknowledged func()) {
	client, err := imapclient.DialInsecure(p.IMAP, nil)
	if err != nil {
		return
	}
	defer client.Close()
	if err := client.Login(receiver(0), crashPassword).Wait(); err != nil {
		return
	}
	for {
		_, s := c.offer(rnd, receiver(0)+" Archive")
		cmd := client.Append("Archive", int64(len(s.text)), nil)
		if _, err := cmd.Write(s.text); err != nil {
			return
		}
		if err := cmd.Close(); err != nil {
			return
		}
		if _, err := cmd.Wait(); err != nil {
			return
		}
		c.settle(s)
		acknowledged()
	}
}

// audit waits until the queue is empty, and holds every mailbox against the ledger.
func (c *campaign) audit(p *process) {
	c.t.Helper()
	c.drain(p)
	for i := range crashReceivers {
		c.read(p, receiver(i), "INBOX")
	}
	c.read(p, receiver(0), "Archive")
	c.compare()
	c.imapAudit(p)
}

// drain waits until nothing is in the queue, and runs the server's own check.
func (c *campaign) drain(p *process) {
	c.t.Helper()
	admin, err := control.Dial(p.Control)
	if err != nil {
		c.t.Fatal(err)
	}
	defer admin.Close()
	eventually(c.t, "an empty queue", func() bool {
		status, err := admin.Status(c.t.Context())
		if err != nil {
			c.t.Fatal(err)
		}
		return status.Queue.Messages == 0
	})
	report, err := admin.Check(c.t.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		c.t.Errorf("check: %v %v", report.Problems, err)
	}
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	give := time.After(time.Minute)
	for !cond() {
		select {
		case <-time.After(2 * time.Millisecond):
		case <-give:
			t.Fatalf("a minute has passed without %s", what)
		}
	}
}

// read fetches what came into a mailbox since the last audit.
func (c *campaign) read(p *process, user, mailbox string) {
	c.t.Helper()
	name := user + " " + mailbox
	client, err := imapclient.DialInsecure(p.IMAP, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	if err := client.Login(user, crashPassword).Wait(); err != nil {
		c.t.Fatal(err)
	}
	data, err := client.Select(mailbox, nil).Wait()
	if err != nil {
		c.t.Fatal(err)
	}
	if v, ok := c.uidval[name]; ok && v != data.UIDValidity {
		c.t.Errorf("%s: UIDVALIDITY changed from %d to %d", name, v, data.UIDValidity)
	}
	c.uidval[name] = data.UIDValidity
	from := max(c.next[name], 1)
	if data.UIDNext < from {
		c.t.Errorf("%s: UIDNEXT went back from %d to %d", name, from, data.UIDNext)
	}
	if data.UIDNext == from {
		return
	}
	c.next[name] = data.UIDNext
	section := &imap.FetchItemBodySection{Peek: true}
	fetch := client.Fetch(imap.UIDSet{imap.UIDRange{Start: from, Stop: data.UIDNext - 1}}, &imap.FetchOptions{UID: true, BodySection: []*imap.FetchItemBodySection{section}})
	defer fetch.Close()
	for msg := fetch.Next(); msg != nil; msg = fetch.Next() {
		for item := msg.Next(); item != nil; item = msg.Next() {
			if body, ok := item.(imapclient.FetchItemDataBodySection); ok {
				text, err := io.ReadAll(body.Literal)
				if err != nil {
					c.t.Fatal(err)
				}
				c.found(name, text)
			}
		}
	}
	if err := fetch.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// found holds one message of a mailbox against the ledger.
func (c *campaign) found(mailbox string, text []byte) {
	c.t.Helper()
	_, rest, ok := strings.Cut(string(text[:min(len(text), 4000)]), "\r\nX-Seq: ")
	id, _, _ := strings.Cut(rest, "\r\n")
	s := c.ledger[id]
	switch {
	case !ok && strings.Contains(string(text[:min(len(text), 1000)]), "Welcome to postroad"):
		return
	case !ok || s == nil:
		c.t.Errorf("%s: a message that nobody sent: %.200q", mailbox, text)
		return
	case !bytes.HasSuffix(text, s.text):
		c.t.Errorf("%s: message %s came out changed", mailbox, id)
	}
	c.seen[mailbox+" "+id]++
}

// compare holds what was found against what the ledger says must be there.
func (c *campaign) compare() {
	c.t.Helper()
	for id, s := range c.ledger {
		there := 0
		for _, box := range s.to {
			n := c.seen[box+" "+id]
			there += n
			if n > 1 {
				c.t.Errorf("%s: message %s is there %d times", box, id, n)
			}
		}
		if whole := there == len(s.to); !whole && (s.acked || there > 0) {
			c.t.Errorf("message %s (acknowledged: %v) is in %d of %v", id, s.acked, there, s.to)
		}
		if s.acked {
			c.acked++
		} else {
			c.unknown++
			c.unknownThere += min(there, 1)
		}
	}
}
