package postroad_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapclient"
	mdns "github.com/miekg/dns"

	"postroad/internal/control"
	"postroad/internal/dsn"
)

var (
	crashRounds = flag.Int("crash.rounds", 3, "rounds of TestCrash: load, kill -9, restart, audit")
	crashSeed   = flag.Uint64("crash.seed", 0, "seed of TestCrash; 0 takes one from the clock")
)

const (
	crashReceivers = 3
	crashPassword  = "crash-campaign"
	roundsPerStore = 25 // then a new data directory, so that first starts are hit too
)

// TestCrash runs the real binary under load from many senders, kills it at a random moment, starts it again and audits:
//
//   - Each acknowledged message is exactly once in each mailbox that it was for, and once more for a list, byte for byte;
//     one whose reply was never seen is there in all of these or in none.
//   - One that broke off is nowhere, and nothing else is anywhere.
//   - One that is held until later is not there before.
//   - Who submits has a copy of each message that was accepted and no other, and these alone count against the daily limits.
//   - Mail that goes out is settled once, as the trace says: what a far host has twice is there with a mark, its sender has a
//     report if and only if it failed, and applications have heard of each step. No order of an administrator is forgotten:
//     see crashOrders.
//   - What was told of bans and app passwords holds, and `check` finds nothing.
func TestCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("starts and kills the real server many times")
	}
	seed := *crashSeed
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	t.Logf("%d rounds, seed %d", *crashRounds, seed)
	c := &campaign{t: t, rnd: rand.New(rand.NewPCG(seed, 1)), outcomes: map[string]int{}, far: newFarSite(t, seed)}
	for round := range *crashRounds {
		if round%roundsPerStore == 0 {
			c.finish()
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
	t.Logf("%d of them were held back, %d others broke off and were nowhere; beside %d attacks",
		c.held, c.broke, c.attacks)
	t.Logf("%d recipients settled once, %d events told; of those far away: %v; %d copies came again, of %d possibly delivered before",
		c.settled, c.told, c.outcomes, c.farAgain, c.doubts)
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
	seen   map[string]int      // mailbox and sequence id: how often it was found
	next   map[string]imap.UID // mailbox: where the next audit begins
	uidval map[string]uint32

	kills, acked, unknown, unknownThere, held, broke, attacks int

	// Of mail that goes out, see crashLife and crashOrders.
	far      *farSite
	came     map[string][]farMail // by box and sequence id
	ended    map[string]bool      // messages whose lives were audited
	audited  time.Time            // the last time
	reported map[string]int       // reports of failure by sequence id and recipient
	refused  map[string]int       // addresses that were refused: since which life that is known
	orders   *crashOrders
	admin    *control.Client // during an audit
	retried  time.Time

	settled, told, farAgain, doubts int
	outcomes                        map[string]int

	apps    map[string]string // an app password of each account: they are checked faster than others
	appUsed bool
	bans    map[string]bool
	banning string // the one that is being made or removed
	today   control.SentToday
	known   map[string]bool // recipients of the account that submits

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
	from   string // of the envelope; empty for what IMAP appends
	to     []string
	copies map[string]int    // by mailbox
	out    map[string]string // what may become of recipients far away, if that is not certain
	text   []byte
	acked  bool
	broken bool          // its end was never sent
	hold   time.Duration // how long it is to be held
	since  time.Time     // it is not held to a time before this,
	until  time.Time     // nor after this

	change int  // of the hold rule that stood at the beginning; -1 for none
	caught bool // that still stood at the end
	traced bool // its life was audited
}

func (c *campaign) newStore(round int) {
	c.dir = filepath.Join(c.t.TempDir(), "data"+strconv.Itoa(round))
	c.ledger, c.seen = map[string]*sent{}, map[string]int{}
	c.came, c.ended, c.reported, c.refused = map[string][]farMail{}, map[string]bool{}, map[string]int{}, map[string]int{}
	c.orders, c.audited = newCrashOrders(), time.Time{}
	c.far.forget()
	c.next, c.uidval = map[string]imap.UID{}, map[string]uint32{}
	c.apps = nil
	c.writers, c.letters, c.views = nil, map[string]*crashLetter{}, map[string][]*crashView{}
	c.pasts, c.shared, c.named = map[string]*crashPast{}, map[string]string{}, map[string]uint64{}
}

func receiver(i int) string { return fmt.Sprintf("r%d@example.test", i) }

func (c *campaign) start() *process {
	c.t.Helper()
	return launchWith(c.t, c.dir, fmt.Sprintf(crashConfig, c.dir)+fmt.Sprintf(crashRoutes, c.far.mail, c.far.spare, c.far.apps, c.far.names.Addr))
}

// round is one life and death of the server, and the audit in its next life.
func (c *campaign) round() {
	p := c.start()
	if c.apps == nil {
		c.crashSettle(p)
	}
	c.imapBegin(p)
	c.load(p)
	c.kills++
	p = c.start()
	c.audit(p, false)
	if c.rnd.IntN(5) == 0 {
		p.stop() // now and then a clean stop instead of a second crash
	} else {
		p.kill()
	}
	c.far.died()
}

// finish checks a store once more, when nothing is held any longer.
func (c *campaign) finish() {
	if c.dir == "" {
		return
	}
	p := c.start()
	c.audit(p, true)
	p.stop()
	c.far.died()
}

// load runs the senders until the kill: when a random number of messages has been acknowledged, and a random moment has
// passed since; or at the instant at which a certain listener acknowledges another one.
func (c *campaign) load(p *process) {
	after := int64(c.rnd.IntN(120))
	moment := time.Duration(c.rnd.IntN(20_000)) * time.Microsecond
	last := "" // any listener
	if c.rnd.IntN(2) == 0 {
		moment, last = 0, crashEntriesIn[c.rnd.IntN(len(crashEntriesIn))].listener // on a reply's heels
	}
	c.killed.Store(false)
	var acks atomic.Int64
	reached, reach := make(chan struct{}), new(sync.Once)
	acknowledged := func(listener string) {
		if acks.Add(1) > after && (last == "" || last == listener) {
			reach.Do(func() {
				if last != "" {
					c.killed.Store(true)
					p.cmd.Process.Kill()
				}
				close(reached)
			})
		}
	}
	var senders sync.WaitGroup
	run := func(work func(*rand.Rand)) {
		rnd := rand.New(rand.NewPCG(c.rnd.Uint64(), 1))
		senders.Go(func() { work(rnd) })
	}
	run(func(rnd *rand.Rand) { c.imapAppender(p, rnd, acknowledged) })
	for range crashMailers {
		run(func(rnd *rand.Rand) { c.mailer(p, rnd, acknowledged) })
	}
	for range crashHostile {
		run(func(rnd *rand.Rand) { c.hostile(p, rnd) })
	}
	run(func(rnd *rand.Rand) { c.banner(p, rnd) })
	run(func(rnd *rand.Rand) { c.operator(p, rnd) })
	if c.rnd.IntN(4) == 0 {
		c.far.names.Rcode(farHost, mdns.RcodeServerFailure)
		defer c.far.names.Rcode(farHost, mdns.RcodeSuccess)
	}
	c.imapLoad(p, &senders, func() { c.did.Add(1); acknowledged("imap") })
	select {
	case <-reached:
	case <-time.After(time.Minute):
		c.t.Errorf("%d messages in a minute\n%s", acks.Load(), p.logText())
	}
	<-time.After(moment)
	c.killed.Store(true)
	p.kill()
	senders.Wait()
	c.far.died()
	for _, s := range c.ledger {
		if s.hold > 0 && s.until.IsZero() {
			s.until = time.Now().Add(s.hold)
		}
	}
}

// enter enters a new message into the ledger before its first octet is sent.
func (c *campaign) enter(rnd *rand.Rand, s *sent) (id string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seq++
	id = strconv.Itoa(c.seq)
	s.text = crashMessage(id, rnd)
	s.since = time.Now().Add(s.hold)
	c.ledger[id] = s
	c.enterOut(s)
	return id
}

// crashMessage is a message of 300 octets to 20 KB, now and then of 300 KB.
func crashMessage(id string, rnd *rand.Rand) []byte {
	size := 300 + rnd.IntN(20_000)
	if rnd.IntN(20) == 0 {
		size = 300_000
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "From: <%s>\r\nTo: <r@example.test>\r\nMessage-ID: <%s@crash.test>\r\nX-Seq: %s\r\nSubject: crash %s\r\n\r\n", receiver(0), id, id, id)
	for n := 0; b.Len() < size; n++ {
		if n%16 == 0 {
			b.WriteString(".") // what DATA doubles
		}
		sum := sha256.Sum256([]byte(id + strconv.Itoa(n)))
		b.WriteString(hex.EncodeToString(sum[:]) + "\r\n")
	}
	return b.Bytes()
}

func (c *campaign) settle(s *sent) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.acked = true
	s.caught = s.change == c.orders.change
	if s.hold > 0 {
		s.until = time.Now().Add(s.hold)
	}
}

// imapAppender appends messages to a mailbox until the server is gone.
func (c *campaign) imapAppender(p *process, rnd *rand.Rand, acknowledged func(listener string)) {
	client, err := imapclient.DialInsecure(p.IMAP, nil)
	if err != nil {
		return
	}
	defer client.Close()
	if err := client.Login(receiver(0), c.apps[receiver(0)]).Wait(); err != nil {
		return
	}
	for {
		s := &sent{copies: map[string]int{receiver(0) + " Archive": 1}}
		c.enter(rnd, s)
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
		acknowledged("imap")
	}
}

// audit waits until nothing is in the queue but what is held, and holds every mailbox against the ledger. At the end
// nothing may be held.
func (c *campaign) audit(p *process, end bool) {
	c.t.Helper()
	admin := p.admin()
	defer admin.Close()
	defer c.showQueue(admin)
	c.admin = admin
	c.auditOrders(admin)
	drained := c.drain(admin, end)
	lives := c.lives(admin)
	c.drain(admin, end) // reports about those that were released since
	for i, user := range crashAccounts {
		c.read(p, user, slices.Concat([]string{"INBOX"}, crashMailboxes[i])...)
	}
	c.readFar()
	c.settleFates(lives, drained)
	c.compare(drained)
	c.audited = drained
	c.crashAuditAdmin(admin)
	c.imapAudit(p)
	if text := p.logText(); strings.Contains(text, "panic") {
		c.t.Errorf("the log has\n%s", text)
	}
}

// crashMailboxes are what is read of crashAccounts beside the INBOX.
var crashMailboxes = [][]string{{"Archive", "Sent"}, nil, {"d0", "d1", "d2"}, nil, nil}

// drain waits until nothing is in the queue that may be delivered, and runs the server's own check. It returns a time up to
// which everything was delivered.
func (c *campaign) drain(admin *control.Client, end bool) (drained time.Time) {
	c.t.Helper()
	eventually(c.t, "an empty queue", func() bool {
		drained = time.Now()
		return c.isDrained(admin, drained, end)
	})
	report, err := admin.Check(c.t.Context(), nil)
	if err != nil || len(report.Problems) > 0 {
		c.t.Errorf("check: %v %v", report.Problems, err)
	}
	return drained
}

func (c *campaign) isDrained(admin *control.Client, now time.Time, end bool) bool {
	c.t.Helper()
	for e, err := range admin.Queue(c.t.Context(), control.QueueFilter{}) {
		if err != nil {
			c.t.Fatal(err)
		}
		if end || !e.Asked.Release.After(now) {
			c.retry()
			return false
		}
	}
	return true
}

// showQueue logs what is in the queue, if the test has failed.
func (c *campaign) showQueue(admin *control.Client) {
	if !c.t.Failed() {
		return
	}
	for e, err := range admin.Queue(context.Background(), control.QueueFilter{Limit: 20}) {
		c.t.Logf("in the queue: %+v %v", e, err)
	}
}

// retry has what was put off tried now.
func (c *campaign) retry() {
	c.t.Helper()
	if time.Since(c.retried) < 20*time.Millisecond {
		return
	}
	if _, err := c.admin.RetryQueue(c.t.Context(), control.QueueFilter{State: "deferred"}); err != nil {
		c.t.Fatal(err)
	}
	c.retried = time.Now()
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

// read fetches what came into a user's mailboxes since the last audit.
func (c *campaign) read(p *process, user string, mailboxes ...string) {
	c.t.Helper()
	client, err := imapclient.DialInsecure(p.IMAP, nil)
	if err != nil {
		c.t.Fatal(err)
	}
	defer client.Close()
	if err := client.Login(user, c.apps[user]).Wait(); err != nil {
		c.t.Fatal(err)
	}
	for _, mailbox := range mailboxes {
		c.readMailbox(client, user, mailbox)
	}
}

func (c *campaign) readMailbox(client *imapclient.Client, user, mailbox string) {
	c.t.Helper()
	name := user + " " + mailbox
	data, err := client.Select(mailbox, nil).Wait()
	if _, made := c.uidval[name]; err != nil && !made {
		return // it is made when the first message comes
	}
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
	fetch := client.Fetch(imap.UIDSet{imap.UIDRange{Start: from, Stop: data.UIDNext - 1}},
		&imap.FetchOptions{UID: true, InternalDate: true, BodySection: []*imap.FetchItemBodySection{section}})
	defer fetch.Close()
	for msg := fetch.Next(); msg != nil; msg = fetch.Next() {
		m, err := msg.Collect()
		if err != nil {
			c.t.Fatal(err)
		}
		c.found(name, m.FindBodySection(section), m.InternalDate)
	}
	if err := fetch.Close(); err != nil {
		c.t.Fatal(err)
	}
}

// found holds one message of a mailbox, which came there at a time, against the ledger.
func (c *campaign) found(mailbox string, text []byte, at time.Time) {
	c.t.Helper()
	if mailbox == crashVictim+" INBOX" {
		c.foundByVictim(text)
		return
	}
	if report, err := dsn.Parse(bytes.NewReader(text)); err == nil {
		c.foundReport(mailbox, report)
		return
	}
	id := seqOf(string(text[:min(len(text), 4000)]))
	s := c.ledger[id]
	switch {
	case s == nil:
		c.t.Errorf("%s: a message that nobody sent, or that was there before: %.500q", mailbox, text)
		return
	case s.broken:
		c.t.Errorf("%s: message %s is there, and its end was never sent", mailbox, id)
	case !bytes.HasSuffix(text, s.text):
		c.t.Errorf("%s: message %s came out changed", mailbox, id)
	case s.copies[mailbox] == 0:
		c.t.Errorf("%s: message %s is there, and was for %v", mailbox, id, s.copies)
	case mailbox == crashSent:
		c.count(s)
	case at.Before(s.since.Truncate(time.Second)) && s.hold > 0:
		c.t.Errorf("%s: message %s came at %s, and was held until %s", mailbox, id, at, s.since)
	}
	c.seen[mailbox+" "+id]++
}

// compare holds what was found against what the ledger says must be there, and forgets it. What may have been released
// since a time may be on its way, and is left for the next audit.
func (c *campaign) compare(drained time.Time) {
	c.t.Helper()
	for id, s := range c.ledger {
		if s.until.After(drained) {
			continue
		}
		c.compareOne(id, s)
		delete(c.ledger, id)
	}
}

func (c *campaign) compareOne(id string, s *sent) {
	c.t.Helper()
	there, missing := 0, 0
	for box, copies := range s.copies {
		n := c.seen[box+" "+id]
		there += n
		if n < copies {
			missing++
		}
		if n > copies {
			c.t.Errorf("%s: message %s is there %d times, want %d", box, id, n, copies)
		}
		delete(c.seen, box+" "+id)
	}
	if missing > 0 && (s.acked || there > 0) {
		c.t.Errorf("message %s (acknowledged: %v) is %d times in %v", id, s.acked, there, s.copies)
	}
	switch {
	case s.broken:
		c.broke++
	case s.acked:
		c.acked++
		if s.hold > 0 {
			c.held++
		}
	default:
		c.unknown++
		c.unknownThere += min(there, 1)
	}
}
