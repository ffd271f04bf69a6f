package postroad

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
	"testing"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/listen/listentest"
	"postroad/internal/mailbox"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/internal/trace"
	"postroad/smtpd"
	"postroad/spool"
)

// A sentRun is a user who sends mail and keeps copies, on a disk that may fail.
type sentRun struct {
	*testing.T
	*house
	disk *storetest.FaultFS
	dir  string
	ann  account.Account
}

var annAddress = envelope.Address{Local: "ann", Domain: "example.test"}

// newSentRun opens a copy of a data directory in which ann is, or makes one.
func newSentRun(t *testing.T, template string) *sentRun {
	r := &sentRun{T: t, disk: storetest.NewFaultFS(), dir: storetest.MemoryDir(t)}
	r.disk.SetFree(4 << 20) // too little for ballast
	if template != "" {
		r.must(os.CopyFS(r.dir, os.DirFS(template)))
	}
	r.open()
	var err error
	if template == "" {
		_, err = r.accounts.AddDomain("example.test")
		r.must(err)
		_, err = r.accounts.Add(annAddress, "secret", nil)
		r.must(err)
	}
	r.ann, err = r.accounts.Get(annAddress)
	r.must(err)
	return r
}

func (r *sentRun) must(err error) {
	r.Helper()
	if err != nil {
		r.Fatal(err)
	}
}

func (r *sentRun) open() {
	r.Helper()
	st, err := store.Open(r.dir, store.Options{FS: r.disk, Reserve: 1})
	r.must(err)
	r.house, err = furnish(st, trace.Limits{}, account.Subaddress{}, time.Now, slog.New(slog.DiscardHandler))
	r.must(err)
}

// send has ann send a message of some octets, and returns the last reply.
func (r *sentRun) send(octets int) string {
	r.Helper()
	srv := smtpd.NewServer(smtpd.Submission, false, smtpd.Config{
		Hostname: "mx.example.test", Store: r.store, Spool: r.spool, Accounts: r.accounts, Logins: r.logins,
		Outgoing: smtpd.Outgoing{SaveSent: true, SentCopy: r.sentCopy, Daily: account.Allowance{Messages: 100, Recipients: 100, New: 100}},
	})
	pipes := listentest.NewPipes()
	ended := make(chan error)
	go func() { ended <- srv.Serve(pipes) }()
	defer func() {
		srv.Shutdown(context.Background())
		r.must(<-ended)
	}()
	conn := pipes.Dial()
	defer conn.Close()
	in := bufio.NewReader(conn)
	login := base64.StdEncoding.EncodeToString([]byte("\x00ann@example.test\x00secret"))
	reply := ""
	for _, say := range []string{"", "EHLO x", "AUTH PLAIN " + login, "MAIL FROM:<ann@example.test>", "RCPT TO:<x@far.test>", "RCPT TO:<y@far.test>", "DATA",
		"From: ann@example.test\r\n\r\n" + strings.Repeat("0123456789abcde\r\n", octets/17) + "."} {
		if say != "" {
			_, err := io.WriteString(conn, say+"\r\n")
			r.must(err)
		}
		for reply = "   -"; reply[3] == '-'; {
			var err error
			reply, err = in.ReadString('\n')
			r.must(err)
		}
		if reply[0] > '3' {
			break
		}
	}
	return reply
}

// held is how many messages are in the queue, how many in Sent, and how many are counted.
func (r *sentRun) held() (queued, copied, counted int) {
	r.Helper()
	counts, err := r.spool.Counts()
	r.must(err)
	sent, err := r.accounts.SentToday(r.ann.ID)
	r.must(err)
	m, err := r.mailboxes.Get(mailbox.Owner(r.ann.ID), "Sent")
	if err != nil && !errors.Is(err, mailbox.ErrNotFound) {
		r.Fatal(err)
	}
	if sent.Recipients != 2*sent.Messages || sent.New != 2*min(sent.Messages, 1) {
		r.Errorf("counted %+v", sent)
	}
	return int(counts.Messages), int(m.Messages), int(sent.Messages)
}

// audit opens the directory anew and checks all of it.
func (r *sentRun) audit() (queued int) {
	r.Helper()
	queued, copied, counted := r.held()
	if queued != copied || queued != counted {
		r.Errorf("%d messages are in the queue, %d in Sent, %d counted", queued, copied, counted)
	}
	problems, err := r.mailboxes.Check(r.Context())
	r.must(err)
	for _, p := range problems {
		r.Errorf("check: %s: %s", p.What, p.Text)
	}
	storetest.Check(r, r.store, r.spool.References, r.mailboxes.References)
	return queued
}

// Wherever a disk fails or the power is cut, a message is in the queue, in Sent and counted, or nothing of it is; and when it
// was answered 250, it is.
func TestSentCopyIsAllOrNothing(t *testing.T) {
	made := newSentRun(t, "")
	made.must(made.store.Close())
	const small, large = 2000, 200_000 // in a segment with others, and in one of its own
	for _, size := range []int{small, large} {
		clean := newSentRun(t, made.dir)
		first := len(clean.disk.Ops())
		if reply := clean.send(size); !strings.HasPrefix(reply, "250") {
			t.Fatal(reply)
		}
		ops := clean.disk.Ops()
		if n := clean.audit(); n != 1 {
			t.Fatalf("%d messages", n)
		}
		clean.must(clean.store.Close())
		for n := first; n < len(ops); n++ {
			for i, fault := range storetest.Faults {
				if testing.Short() && (n+i)%len(storetest.Faults) != 0 {
					continue // each operation, and each fault, but not each of each
				}
				t.Run(fmt.Sprintf("%d octets, %d %s: %s", size, n, ops[n], fault), func(t *testing.T) {
					r := newSentRun(t, made.dir)
					r.disk.FailAt(n, fault, false)
					accepted := strings.HasPrefix(r.send(size), "250")
					_ = r.store.Close() // the disk may be dead
					if fault == storetest.Cut {
						r.disk.Crash(storetest.KeepSome, uint64(n))
					}
					r.disk.FailAt(-1, "", false)
					r.open()
					if queued := r.audit(); accepted && queued != 1 {
						t.Errorf("the message was accepted, and %d are there", queued)
					}
					if reply := r.send(small); !strings.HasPrefix(reply, "250") {
						t.Errorf("afterwards: %s", reply)
					}
					r.audit()
					r.must(r.store.Close())
				})
			}
		}
	}
}

func TestSentCopyInTheHouse(t *testing.T) {
	r := newSentRun(t, "")
	defer func() { r.must(r.store.Close()) }()
	if reply := r.send(100); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	m, err := r.mailboxes.Get(mailbox.Owner(r.ann.ID), "Sent")
	r.must(err)
	var body store.ID
	for item, err := range r.mailboxes.Read(m.ID, nil, mailbox.Notes|mailbox.Bodies) {
		r.must(errors.Join(err, item.Err))
		if body = item.Message.Body; strings.Join(item.Flags, " ") != `\Seen` {
			t.Errorf("flags %v", item.Flags)
		}
	}
	events, err := r.trace.Message(body)
	r.must(err)
	told := ""
	for _, e := range events {
		told += fmt.Sprintf("%s %s %d; ", e.Kind, e.Mailbox, e.UID)
	}
	if told != "received  0; saved ann@example.test Sent 1; " {
		t.Errorf("the trace tells %s", told)
	}
	if stats := r.store.Stats(); stats.Bodies != 1 {
		t.Errorf("%d bodies", stats.Bodies)
	}

	// Over quota the message goes out without a copy.
	r.must(r.accounts.SetQuota(r.ann.ID, account.Quota{Messages: 1}))
	if reply := r.send(100); !strings.HasPrefix(reply, "250") {
		t.Fatal(reply)
	}
	if queued, copied, counted := r.held(); queued != 2 || copied != 1 || counted != 2 {
		t.Errorf("%d in the queue, %d in Sent, %d counted", queued, copied, counted)
	}
}

// An account that is removed while its message comes in leaves no mailbox behind.
func TestSentCopyOfARemovedAccount(t *testing.T) {
	r := newSentRun(t, "")
	defer func() { r.must(r.store.Close()) }()
	copied := r.sentCopy(r.ann)
	io.WriteString(copied, "Subject: x\r\n\r\n")
	r.must(copied.Finish())
	r.must(r.accounts.Remove(annAddress, nil))
	d := r.store.NewDraft()
	_, err := d.Write([]byte("Subject: x\r\n\r\n"))
	r.must(err)
	m := &spool.Message{Envelope: envelope.Envelope{From: annAddress}}
	r.must(r.spool.Accept(m, []spool.Recipient{{Recipient: envelope.Recipient{To: annAddress}}}, d, func(tx store.Tx) error {
		return copied.Put(tx, d.ID())
	}))
	if list, err := r.mailboxes.List(mailbox.Owner(r.ann.ID)); err != nil || len(list) != 0 || copied.Missing() == nil {
		t.Errorf("%v %v, missing: %v", list, err, copied.Missing())
	}
}
