package smtpd

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"

	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

// A faultWay is how a message comes in that meets a fault.
type faultWay struct {
	name string
	kind Kind
	text string
	bdat int // octets of a chunk; 0 is DATA
	to   []string
}

var faultWays = []faultWay{
	{"DATA", MX, faultText(1), 0, []string{"alice", "bob"}},
	{"DATA, large", MX, faultText(20_000), 0, []string{"alice"}},
	{"BDAT", MX, faultText(10), 100, []string{"alice", "both", "list"}},
	{"BDAT, large", MX, faultText(20_000), 60_000, []string{"away"}},
	{"LMTP", LMTP, faultText(1), 0, []string{"alice", "list", "bob"}},
	{"LMTP, large BDAT", LMTP, faultText(20_000), 100_000, []string{"both", "bob"}},
	{"submission", Submission, faultText(1), 0, []string{"list", "away"}},
	{"submission, large BDAT", Submission, faultText(20_000), 250_000, []string{"bob"}},
}

func faultText(lines int) string {
	return "From: alice@example.test\r\nDate: Fri, 20 Nov 2026 09:10:16 +0000\r\nMessage-ID: <1@far.test>\r\n\r\n" + strings.Repeat("0123456789abcdef\r\n", lines)
}

// A faultRun is a session on a disk that fails.
type faultRun struct {
	t     *testing.T
	way   faultWay
	dir   string
	disk  *storetest.FaultFS
	house *house
	c     *client
	acked []string // texts
}

func newFaultRun(t *testing.T, way faultWay) *faultRun {
	r := &faultRun{t: t, way: way, dir: storetest.MemoryDir(t), disk: storetest.NewFaultFS()}
	r.disk.SetFree(4 << 20) // too little for ballast
	r.house = buildOn(t, r.open(), way.kind, false)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.house.serve(t, l)
	r.c = r.house.dial(t)
	r.say("", 220)
	r.say(map[Kind]string{LMTP: "LHLO x"}[way.kind]+map[bool]string{true: "EHLO x"}[way.kind != LMTP], 250)
	if way.kind == Submission {
		r.say("AUTH PLAIN "+alicePlain, 235)
	}
	return r
}

func (r *faultRun) open() *store.Store {
	r.t.Helper()
	st, err := store.Open(r.dir, store.Options{FS: r.disk, Reserve: 1})
	if err != nil {
		r.t.Fatal(err)
	}
	return st
}

// say gives a command and wants a reply.
func (r *faultRun) say(line string, code int) {
	r.t.Helper()
	if line != "" {
		r.c.send(line + "\r\n")
	}
	if got, err := r.c.reply(); err != nil || !strings.HasPrefix(got, fmt.Sprint(code)) {
		r.t.Fatalf("%.60q is answered %q (%v), want %d", line, got, err, code)
	}
}

// message sends a message, and returns whether it was taken: with LMTP for all of its recipients, or for none.
func (r *faultRun) message(subject string) bool {
	r.t.Helper()
	r.say("MAIL FROM:<alice@example.test>", 250)
	for _, to := range r.way.to {
		r.say("RCPT TO:<"+to+"@example.test>", 250)
	}
	text := "Subject: " + subject + "\r\n" + r.way.text
	replies := r.content(text)
	for _, reply := range replies {
		switch {
		case reply[:4] != replies[0][:4]:
			r.t.Errorf("some recipients are answered %q, others %q", replies[0], reply)
		case reply[:3] == "250", strings.HasPrefix(reply, "451 4.3.0 "), strings.HasPrefix(reply, "452 4.3.1 "):
		default:
			r.t.Errorf("%s is answered %q", subject, reply)
		}
	}
	if replies[0][:3] != "250" {
		return false
	}
	r.acked = append(r.acked, text)
	return true
}

// content sends a message's octets and returns the replies to it. A chunk that is refused ends the message.
func (r *faultRun) content(text string) []string {
	r.t.Helper()
	if r.way.bdat == 0 {
		r.say("DATA", 354)
		r.c.send(text + ".\r\n")
		return r.replies(r.last())
	}
	for at := 0; ; at += r.way.bdat {
		chunk, last := text[at:], " LAST"
		if len(chunk) > r.way.bdat {
			chunk, last = chunk[:r.way.bdat], ""
		}
		r.c.send(fmt.Sprintf("BDAT %d%s\r\n%s", len(chunk), last, chunk))
		if last != "" {
			return r.replies(r.last())
		}
		if got := r.replies(1); got[0][:3] != "250" {
			r.say("RSET", 250) // RFC 3030, 2
			return got
		}
	}
}

// last is how many replies there are to the end of a message.
func (r *faultRun) last() int {
	if r.way.kind == LMTP {
		return len(r.way.to)
	}
	return 1
}

func (r *faultRun) replies(n int) (all []string) {
	r.t.Helper()
	for range n {
		got, err := r.c.reply()
		if err != nil {
			r.t.Fatal(err)
		}
		all = append(all, got)
	}
	return all
}

// restart ends the server and opens the store again; after a power cut with what that leaves.
func (r *faultRun) restart(fault storetest.Fault, seed int) *store.Store {
	r.c.Close()
	r.house.Shutdown(r.t.Context())
	_ = r.house.queue.st.Close() // the disk may be dead
	r.disk.FailAt(-1, "", false)
	if fault == storetest.Cut {
		r.disk.Crash(storetest.Keeps[seed%len(storetest.Keeps)], uint64(seed))
	}
	return r.open()
}

// audit wants just what was acknowledged in the store.
func (r *faultRun) audit(st *store.Store) {
	r.t.Helper()
	defer st.Close()
	due, err := spool.Open(st, clock).Claim(1000)
	if err != nil {
		r.t.Fatal(err)
	}
	var there []string
	recipients := map[store.ID]int{}
	for _, d := range due {
		if recipients[d.Message.ID]++; recipients[d.Message.ID] == 1 {
			there = append(there, r.read(st, d.Message))
		}
	}
	if !slices.Equal(there, r.acked) {
		r.t.Errorf("%d messages are there, and %d were acknowledged", len(there), len(r.acked))
	}
	for id, n := range recipients {
		if want := r.targets(); n != want {
			r.t.Errorf("%s has %d recipients, want %d", id, n, want)
		}
	}
	storetest.Check(r.t, st, new(spool.Spool).References)
}

// targets is how many recipients of the spool the message has.
func (r *faultRun) targets() int {
	folded := map[string]bool{}
	for _, to := range r.way.to {
		for _, target := range town[to+"@example.test"] {
			folded[target.Address.String()] = true
		}
	}
	return len(folded)
}

// read returns a message from its subject on.
func (r *faultRun) read(st *store.Store, m *spool.Message) string {
	r.t.Helper()
	body, err := st.OpenBody(m.ID)
	if err != nil {
		r.t.Error(err)
		return ""
	}
	defer body.Close()
	text, err := io.ReadAll(body.Reader())
	if err != nil {
		r.t.Error(err)
	}
	return string(text[max(0, bytes.Index(text, []byte("Subject:"))):])
}

// TestFaultAtEachStep: whatever goes wrong at whatever operation of the disk while a message comes in, by any way, the
// reply is 4yz unless the message is durable; the session goes on; and after a restart there is what was
// acknowledged, whole, and nothing else. A store that has failed refuses mail in the same words until then.
func TestFaultAtEachStep(t *testing.T) {
	for _, way := range faultWays {
		t.Run(way.name, func(t *testing.T) {
			t.Parallel()
			for _, fault := range storetest.Faults {
				ops := 0
				for faultAt(t, way, fault, ops) {
					ops++
				}
				if ops < 2 {
					t.Errorf("%s: only %d operations were there to fail", fault, ops)
				}
			}
		})
	}
}

// faultAt reports whether there was an operation to fail.
func faultAt(t *testing.T, way faultWay, fault storetest.Fault, op int) bool {
	t.Helper()
	r := newFaultRun(t, way)
	r.message("before")
	r.disk.FailAt(len(r.disk.Ops())+op, fault, op%2 == 0)
	taken := r.message("beside")
	tripped := r.disk.Tripped()
	if !tripped && !taken {
		t.Errorf("nothing failed, and the message is refused")
	}
	refuses := r.house.queue.st.Failed() != nil
	if fault == storetest.Cut && tripped {
		refuses = true
	} else {
		r.disk.FailAt(-1, "", false)
	}
	if taken := r.message("after"); taken == refuses {
		t.Errorf("the store refuses to write (%t), and the next message is taken: %t", refuses, taken)
	}
	r.say("NOOP", 250)
	r.audit(r.restart(fault, op))
	if t.Failed() {
		t.Fatalf("%s at operation %d: %q", fault, op, r.disk.Ops())
	}
	return tripped
}
