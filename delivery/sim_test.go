package delivery

import (
	"crypto/tls"
	"encoding/binary"
	"flag"
	"fmt"
	"hash/fnv"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"postroad/internal/dns/dnstest"
	"postroad/internal/dsn"
	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/internal/store"
	"postroad/internal/trace"
	"postroad/spool"
)

// A simulation is a week of a server that sends to an Internet of odd receivers, which a seed makes, in a bubble. In
// the end what the receivers took is held against what the server says of each recipient.
var (
	simSeed       = flag.Uint64("sim.seed", 0, "the simulation's seed; 0 is a few of them")
	simRecipients = flag.Int("sim.recipients", 1500, "how many recipients the simulation has; 500 with -short")
	simDomains    = flag.Int("sim.domains", 120, "and in how many domains they are")
)

func TestSimulation(t *testing.T) {
	seeds := []uint64{1, 2}
	if testing.Short() {
		seeds, *simRecipients = seeds[:1], min(*simRecipients, 500)
	}
	if *simSeed != 0 {
		seeds = []uint64{*simSeed}
	}
	for _, seed := range seeds {
		t.Run(fmt.Sprintf("-sim.seed=%d", seed), func(t *testing.T) {
			config, _ := listentest.Certificate(t, "mx.example")
			synctest.Test(t, func(t *testing.T) { newSim(t, seed, config).run() })
		})
	}
}

// sim is one such world. All that its receivers do follows from the seed, and from what they are asked.
type sim struct {
	t    *testing.T
	f    *fixture
	seed uint64
	rnd  *rand.Rand // of what the server is given
	tls  *tls.Config

	receivers []*simReceiver
	began     time.Time
	sent      map[store.ID]simMessage

	mu   sync.Mutex
	seen map[string]time.Time // by greylisting receivers: when a recipient came first
}

// simMessage is what the server was given.
type simMessage struct {
	seq string // in its envelope and its header
	to  []string
}

// simReceiver is one domain and the host that takes its mail.
type simReceiver struct {
	w      *sim
	domain string
	temper simTemper
	peer   *peer
}

// simTemper is how a receiver behaves.
type simTemper string

const (
	healthy   simTemper = "healthy"
	plain     simTemper = "without extensions"
	slow      simTemper = "slow"
	greylist  simTemper = "greylisting"
	storm     simTemper = "busy for a day and a half"
	dropping  simTemper = "dropping connections in any phase"
	wrongTLS  simTemper = "TLS that does not work"
	badWords  simTemper = "replies that are none"
	deadLong  simTemper = "down for thirty hours"
	deadEver  simTemper = "down for ever"
	nullMX    simTemper = "takes no mail"
	noName    simTemper = "does not exist"
	deafNames simTemper = "name servers down for three hours"
)

var tempers = []simTemper{
	healthy, healthy, healthy, healthy, plain, slow, greylist, greylist, storm, dropping, dropping, dropping, wrongTLS, badWords, badWords,
	deadLong, deadEver, nullMX, noName, deafNames,
}

// chance is a number that follows from the seed and the words.
func (w *sim) chance(words ...any) uint64 {
	h := fnv.New64a()
	binary.Write(h, binary.LittleEndian, w.seed)
	fmt.Fprintln(h, words...)
	x := h.Sum64()
	return (x ^ x>>29) * 0xbf58476d1ce4e5b9 >> 16
}

func newSim(t *testing.T, seed uint64, config *tls.Config) *sim {
	w := &sim{
		t: t, f: newFixture(t), seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), tls: config, began: time.Now(),
		sent: map[store.ID]simMessage{}, seen: map[string]time.Time{},
	}
	w.f.cfg.Limits.Drain = time.Millisecond
	for i := range *simDomains {
		w.receivers = append(w.receivers, w.receiver(i))
	}
	return w
}

func (w *sim) receiver(i int) *simReceiver {
	d := &simReceiver{w: w, domain: fmt.Sprintf("d%d.example", i), temper: tempers[w.chance("temper", i)%uint64(len(tempers))]}
	d.peer = &peer{extensions: []string{"PIPELINING", "8BITMIME", "ENHANCEDSTATUSCODES", "SIZE 1000000"}, script: d.script}
	switch w.chance("tls", i) % 3 {
	case 0:
		d.peer.tls = w.tls
	case 1:
		d.peer.extensions = append(d.peer.extensions, "CHUNKING")
	}
	host, ip := "mx."+d.domain, fmt.Sprintf("5.%d.%d.%d", i>>16, i>>8&255, i&255)
	w.f.dns.Host(host, ip)
	w.f.dns.MX(d.domain, host)
	switch d.temper {
	case plain:
		d.peer.extensions = nil
	case nullMX:
		w.f.dns.MX(d.domain, ".")
	case noName:
		w.f.dns.MX(d.domain)
	case deafNames:
		w.f.dns.Fail(d.domain, dnstest.ErrServFail)
	case wrongTLS:
		d.peer.tls = w.tls
	}
	if w.chance("two", i)%4 == 0 && d.temper == healthy { // the better host is never there
		w.f.dns.Host("down."+d.domain, "6.0.0.1")
		w.f.dns.MX(d.domain, "down."+d.domain, host)
	}
	if d.temper != deadEver && d.temper != deadLong {
		w.f.net.peer(ip+":25", d.peer)
	}
	return d
}

// later lets happen what comes after so many hours.
func (w *sim) later(hours int) {
	for i, d := range w.receivers {
		switch {
		case d.temper == deafNames && hours == 3:
			w.f.dns.Fail(d.domain, nil)
		case d.temper == deadLong && hours == 30:
			w.f.net.peer(fmt.Sprintf("5.%d.%d.%d:25", i>>16, i>>8&255, i&255), d.peer)
		}
	}
}

// script is what a receiver says at a phase of a session. What it knows of the message is in s.mail.
func (d *simReceiver) script(s *session, phase string) string {
	verb, to, isRcpt := strings.Cut(phase, " ")
	switch {
	case isRcpt && d.w.chance("unknown", to)%10 == 0:
		return "550 5.1.1 no such user"
	case isRcpt && d.temper == greylist:
		return d.first(to)
	case isRcpt, verb == "unknown":
		return ""
	case verb == "dot" && d.w.chance("spam", seqOf(s.mail.text), d.domain)%30 == 0:
		return "554 5.7.1 we do not want this"
	}
	turn := d.w.chance(d.domain, s.number, phase)
	switch d.temper {
	case slow:
		time.Sleep(time.Duration(turn%60) * time.Second)
	case storm:
		if time.Since(d.w.began) < 36*time.Hour && turn%3 > 0 {
			return []string{"451 4.3.2 busy", "421 4.3.2 come back", "452 4.3.1 no room"}[turn>>8%3]
		}
	case dropping:
		if turn%12 == 0 {
			return []string{"FIN", "RST", "silence"}[turn>>8%3]
		}
	case wrongTLS:
		if verb == "STARTTLS" {
			return "220 go on, but not with TLS"
		}
	case badWords:
		if turn%9 == 0 {
			return simWords[turn>>8%uint64(len(simWords))]
		}
	}
	return ""
}

// simWords are no replies, or none that fit.
var simWords = []string{
	"hello", "25", "250", "999 what", "250-a\r\n251 b", "354 go on", "220 hello again", "\xff\xfe\x00", "250 " + strings.Repeat("x", 10_000), "451", "550", "+OK", "",
}

// first is what a greylisting receiver says.
func (d *simReceiver) first(to string) string {
	d.w.mu.Lock()
	defer d.w.mu.Unlock()
	if _, ok := d.w.seen[to]; !ok {
		d.w.seen[to] = time.Now()
	}
	if time.Since(d.w.seen[to]) < 10*time.Minute {
		return "450 4.7.1 come back later"
	}
	return ""
}

// run gives the server mail for a day and a half, stops it now and then in the middle of its work, and audits.
func (w *sim) run() {
	w.f.start()
	left := *simRecipients
	perHour := left/36 + 1
	for hours := 0; hours < 7*24; hours++ {
		w.later(hours)
		for given := 0; left > 0 && given < perHour; {
			n := min(1+w.rnd.IntN(50), left, perHour-given+1)
			w.submit(n)
			given, left = given+n, left-n
		}
		w.f.pass(time.Duration(10+w.rnd.IntN(50)) * time.Minute)
		if w.rnd.IntN(6) == 0 {
			w.f.halt()
			w.f.reopen()
			w.f.start()
		}
		w.f.pass(time.Until(w.began.Add(time.Duration(hours+1) * time.Hour)))
	}
	w.f.drained()
	w.audit()
}

// submit accepts a message from alice.
func (w *sim) submit(recipients int) {
	n := len(w.sent)
	var rcpts []spool.Recipient
	var to []string
	for range recipients {
		d := w.receivers[w.rnd.IntN(len(w.receivers))]
		addr := fmt.Sprintf("u%d@%s", w.rnd.IntN(1000), d.domain)
		if !slices.Contains(to, addr) {
			to = append(to, addr)
			rcpts = append(rcpts, spool.Recipient{Recipient: envelope.Recipient{To: path("<" + addr + ">")}})
		}
	}
	m := &spool.Message{Envelope: envelope.Envelope{From: path("<alice@a.test>"), ID: fmt.Sprint(n)}}
	id := w.f.accept(m, fmt.Sprintf("Return-Path: <>\r\nX-Seq: %d\r\n\r\n.body\r\n", n), rcpts...)
	w.sent[id] = simMessage{fmt.Sprint(n), to}
}

// seqOf reads from a message which one it is.
func seqOf(text string) string {
	_, seq, _ := strings.Cut(text, "X-Seq: ")
	seq, _, _ = strings.Cut(seq, "\r\n")
	return seq
}

// fate is what one recipient of one message came to.
type fate struct {
	taken    int // times that a receiver took the message
	doubted  int // of those without a good reply
	ends     []trace.Kind
	possibly int // events that call it possibly delivered
	failures int // reports of a failure
	delays   int
}

// audit holds what receivers took, what the trace says and what the sender was told against one another.
func (w *sim) audit() {
	fates := map[string]*fate{}
	of := func(seq, to string) *fate {
		key := seq + " " + to
		if fates[key] == nil {
			fates[key] = &fate{}
		}
		return fates[key]
	}
	for _, id := range slices.Sorted(maps.Keys(w.sent)) {
		w.traced(id, of)
	}
	if len(fates) == 0 {
		w.t.Fatal("nothing was sent")
	}
	asked := len(fates)
	for _, d := range w.receivers {
		for _, m := range d.peer.got() {
			for _, to := range m.to {
				f := of(seqOf(m.text), to)
				if f.taken++; m.doubt != "" {
					f.doubted++
				}
			}
		}
	}
	w.told(of)
	if len(fates) != asked {
		w.t.Errorf("%d recipients were sent to, who were not asked for", len(fates)-asked)
	}
	counts := map[string]int{}
	for key, f := range fates {
		if fault := f.fault(); fault != "" {
			w.t.Errorf("%s: %s: %+v", key, fault, *f)
		}
		counts[fmt.Sprint(f.ends)]++
		counts["taken twice"] += max(f.taken-1, 0)
	}
	w.t.Logf("seed %d: %d messages, %d recipients: %v", w.seed, len(w.sent), asked, counts)
}

// traced reads what the trace says of a message.
func (w *sim) traced(id store.ID, of func(seq, to string) *fate) {
	events, err := trace.New(w.f.st, trace.Limits{}).Message(id)
	if err != nil {
		w.t.Fatal(err)
	}
	m := w.sent[id]
	for _, to := range m.to {
		of(m.seq, to)
	}
	for _, e := range events {
		for _, to := range e.To {
			f := of(m.seq, to)
			switch e.Kind {
			case trace.Relayed, trace.Bounced, trace.Expired, trace.Delivered, trace.Removed, trace.Held:
				f.ends = append(f.ends, e.Kind)
			}
			if strings.Contains(e.Reply, "possibly delivered") {
				f.possibly++
			}
		}
	}
}

// told reads the reports that the sender has.
func (w *sim) told(of func(seq, to string) *fate) {
	for _, text := range w.f.mail("alice") {
		report, err := dsn.Parse(strings.NewReader(text))
		if err != nil {
			w.t.Fatalf("alice has %q: %v", text[:min(len(text), 300)], err)
		}
		for _, r := range report.Recipients {
			f := of(report.EnvelopeID, r.Final.String())
			switch r.Action {
			case dsn.Failed:
				f.failures++
			case dsn.Delayed:
				f.delays++
			default:
				w.t.Errorf("alice is told that a message was %s", r.Action)
			}
		}
	}
}

// fault is what is wrong with a fate, or "".
func (f *fate) fault() string {
	if len(f.ends) != 1 {
		return "it did not end once"
	}
	relayed := f.ends[0] == trace.Relayed
	switch {
	case relayed && f.taken == 0:
		return "nobody has it"
	case relayed && f.taken > 1+f.possibly:
		return "a receiver has it more often than is known"
	case !relayed && f.taken > f.possibly:
		return "it failed, and a receiver has it"
	case relayed != (f.failures == 0), f.failures > 1:
		return "the sender is told of a failure where there is none, or not once where there is"
	case f.delays > 1:
		return "the sender is told twice of a delay"
	}
	return ""
}
