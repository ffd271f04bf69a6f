package delivery

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/internal/store/storetest"
	"postroad/spool"
)

// list makes a list of alice's.
func (f *fixture) list(name string, post account.Poster, members ...string) {
	f.t.Helper()
	var all []envelope.Address
	for _, m := range members {
		all = append(all, path(m))
	}
	l := account.List{Address: path(name), Owners: []envelope.Address{path("alice@a.test")}, Post: post, Title: "News"}
	if _, err := f.ac.AddList(l, all...); err != nil {
		f.t.Fatal(err)
	}
}

func TestListDelivery(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		far := f.site("y.test", public(1), &peer{})
		if _, err := f.ac.SetAlias(path("both@a.test"), []envelope.Address{path("alice@a.test"), path("bob@a.test")}); err != nil {
			t.Fatal(err)
		}
		f.list("news@a.test", account.PostMembers, "bob@a.test", "both@a.test", "reader@y.test", "Reader@Y.test", "gone@a.test")
		rcpts := f.rcpts("news@a.test")
		rcpts[0].Notify, rcpts[0].Original = envelope.NotifyDelay, "rfc822;other@a.test"
		id := f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<bob@a.test>"), ID: "env-1", Body: envelope.Body8Bit}}, letter, rcpts...)
		f.start()
		f.drained()

		got := f.mail("bob")
		if len(got) != 1 {
			t.Fatalf("bob has %d: %q", len(got), got)
		}
		fields := "Return-Path: <news-owner@a.test>\r\n" +
			"Delivered-To: news@a.test\r\n" +
			"Received: by mx.a.test id #\r\n\tfor <news@a.test>; #\r\n" +
			"List-Id: \"News\" <news.a.test>\r\n" +
			"List-Post: <mailto:news@a.test>\r\n" +
			"List-Owner: <mailto:news-owner@a.test>\r\n" +
			"List-Unsubscribe: <mailto:news-owner@a.test?subject=unsubscribe%20news@a.test>\r\n" +
			"Precedence: list\r\n"
		content := letter[strings.Index(letter, "\n")+1:]
		if !like(got[0], fields+content) {
			t.Errorf("bob has:\n%s\nwant:\n%s", got[0], fields+content)
		}
		if alice := f.mail("alice"); !slices.Equal(alice, got) {
			t.Errorf("alice has %q", alice)
		}
		mails := far.got()
		if len(mails) != 1 || len(mails[0].to) != 1 || !strings.Contains(mails[0].from, "<news-owner@a.test>") || strings.Contains(mails[0].from, "env-1") {
			t.Fatalf("the reader has %+v", mails)
		}
		for _, line := range far.commands() {
			if strings.Contains(line, "ORCPT=rfc822;other") {
				t.Errorf("what the sender asked for went on: %q", line)
			}
		}
		if ev := f.events(id); len(ev) != 2 || !strings.HasPrefix(ev[1], "delivered news@a.test") {
			t.Errorf("trace: %q", ev)
		}
	})
}

// like compares a text with one in which # stands for anything without a line end.
func like(got, want string) bool {
	for i, piece := range strings.Split(want, "#") {
		at := strings.Index(got, piece)
		if at < 0 || i == 0 && at > 0 || strings.Contains(got[:at], "\n") {
			return false
		}
		got = got[at+len(piece):]
	}
	return got == ""
}

// Who may not write to a list is told; a report, and anything else without a sender, goes nowhere.
func TestListPolicy(t *testing.T) {
	for _, c := range []struct {
		name, from string
		post       account.Poster
		takes      bool
		status     string // of the report to the sender
	}{
		{"a member", "<bob@a.test>", account.PostMembers, true, ""},
		{"the owner", "<alice@a.test>", account.PostMembers, true, ""},
		{"a stranger among members", "<carol@z.test>", account.PostMembers, false, "5.7.2"},
		{"anyone", "<carol@z.test>", account.PostAnyone, true, ""},
		{"a member where owners write", "<bob@a.test>", account.PostOwners, false, "5.7.2"},
		{"an owner where owners write", "<Alice@A.test>", account.PostOwners, true, ""},
		{"nobody", "<>", account.PostAnyone, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				carol := f.site("z.test", public(1), &peer{})
				reader := f.site("y.test", public(2), &peer{})
				f.list("news@a.test", c.post, "reader@y.test", "bob@a.test")
				f.submit(c.from, "news@a.test")
				f.start()
				f.drained()
				if got := len(reader.got()); got != map[bool]int{true: 1}[c.takes] {
					t.Errorf("a member has %d", got)
				}
				told := append(f.mail("bob"), f.mail("alice")...)
				for _, m := range carol.got() {
					told = append(told, m.text)
				}
				reports := slices.DeleteFunc(told, func(s string) bool { return !strings.Contains(s, "Status: ") })
				if len(reports) != map[bool]int{true: 1}[c.status != ""] || c.status != "" && !strings.Contains(reports[0], "Status: "+c.status) {
					t.Errorf("reports: %q", reports)
				}
			})
		})
	}
}

// What became impossible since the message was accepted is told to its sender.
func TestListGone(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.list("news@a.test", account.PostAnyone, "alice@a.test")
		f.submit("<bob@a.test>", "news@a.test")
		if err := f.ac.RemoveList(path("news@a.test")); err != nil {
			t.Fatal(err)
		}
		f.start()
		f.drained()
		if got := f.mail("bob"); len(got) != 1 || !strings.Contains(got[0], "Status: 5.1.1") || len(f.mail("alice")) != 0 {
			t.Errorf("bob has %q", got)
		}
	})
}

func TestListWithoutMembers(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.list("news@a.test", account.PostAnyone)
		id := f.submit("<bob@a.test>", "news@a.test")
		f.start()
		f.drained()
		if ev := f.events(id); len(ev) != 2 || !strings.HasPrefix(ev[1], "delivered news@a.test") {
			t.Errorf("trace: %q", ev)
		}
	})
}

// RFC 3461, 5.2.7: that the list has it is all that the sender hears.
func TestListReportsSuccessItself(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		far := f.site("y.test", public(1), &peer{extensions: []string{"DSN"}, say: map[string]string{"RCPT": "550 5.1.1 no"}})
		f.list("news@a.test", account.PostAnyone, "reader@y.test")
		rcpts := f.rcpts("news@a.test")
		rcpts[0].Notify = envelope.NotifySuccess | envelope.NotifyFailure
		f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<bob@a.test>"), ID: "env-1"}}, letter, rcpts...)
		f.start()
		f.drained()
		if got := f.mail("bob"); len(got) != 1 || !strings.Contains(got[0], "Action: delivered") || !strings.Contains(got[0], "Final-Recipient: rfc822; news@a.test") {
			t.Errorf("bob has %q", got)
		}
		if got := f.mail("alice"); len(got) != 1 || !strings.Contains(got[0], "Status: 5.1.1") || strings.Contains(got[0], "env-1") {
			t.Errorf("the owner has %q", got)
		}
		for _, line := range far.commands() {
			if strings.Contains(line, "ENVID") || strings.Contains(line, "NOTIFY=SUCCESS") {
				t.Errorf("what the sender asked for went on: %q", line)
			}
		}
	})
}

// A list of lists ends, however they are linked, and each member has the message once from each.
func TestC09ListOfLists(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.list("one@a.test", account.PostAnyone, "two@a.test", "bob@a.test", "one-ring@a.test")
		f.list("two@a.test", account.PostAnyone, "one@a.test", "alice@a.test")
		f.list("one-ring@a.test", account.PostAnyone, "two@a.test")
		f.submit("<>", "one@a.test") // goes nowhere
		f.submit("<carol@a.test>", "one@a.test")
		f.start()
		f.drained()
		var letters []string
		for _, m := range append(f.mail("alice"), f.mail("bob")...) {
			if strings.Contains(m, "Subject: hello") && !strings.Contains(m, "Status: 5.4.6") {
				letters = append(letters, m)
			}
		}
		// bob by one; alice by two from one, and by two from one-ring.
		if len(letters) != 3 {
			t.Errorf("%d letters: %q", len(letters), letters)
		}
		for _, m := range letters {
			if strings.Count(m, "List-Id:") != 1 || strings.Count(m, "Precedence:") != 1 {
				t.Errorf("fields of two lists: %s", m)
			}
		}
	})
}

// originSigner notes whose mail it is asked to sign.
type originSigner struct{ seen []spool.Origin }

func (s *originSigner) Fields(_ context.Context, m Outgoing, _ func() (io.ReadCloser, error)) ([]byte, error) {
	s.seen = append(s.seen, m.Origin)
	return nil, nil
}

func (s *originSigner) From(m Outgoing) (envelope.Address, error) { return m.Envelope.From, nil }

// TestD04StrangersPosts: that a stranger wrote what a list sends on is known when it is to be signed, also behind two lists.
func TestD04StrangersPosts(t *testing.T) {
	stranger := spool.Origin{Protocol: "ESMTP", Peer: "203.0.114.9", Helo: "far.test"}
	for name, tt := range map[string]struct{ origin, want spool.Origin }{
		"a stranger":  {stranger, spool.Origin{Peer: stranger.Peer, Helo: stranger.Helo}},
		"an account":  {spool.Origin{Protocol: "ESMTPSA", Peer: stranger.Peer, Account: "bob@a.test"}, spool.Origin{}},
		"a program":   {spool.Origin{Protocol: "ESMTP", Peer: "127.0.0.1"}, spool.Origin{}},
		"by the LMTP": {spool.Origin{Protocol: "LMTP", Peer: "local"}, spool.Origin{Peer: "local"}},
	} {
		t.Run(name, func(t *testing.T) {
			bubble(t, func(t *testing.T, f *fixture) {
				f.site("y.test", public(1), &peer{})
				f.list("one@a.test", account.PostAnyone, "two@a.test")
				f.list("two@a.test", account.PostAnyone, "reader@y.test")
				s := &originSigner{}
				f.cfg.Signer = s
				f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<bob@a.test>")}, Origin: tt.origin}, letter, f.rcpts("one@a.test")...)
				f.start()
				f.drained()
				if len(s.seen) != 1 || s.seen[0] != tt.want {
					t.Errorf("signed %+v, want %+v", s.seen, tt.want)
				}
			})
		})
	}
}

// A message that has been through the list is told so, to its sender alone.
func TestC09ListSeesItsOwnFields(t *testing.T) {
	for _, field := range []string{"Delivered-To: news@a.test", "List-Id: something\r\n <NEWS.a.test>"} {
		bubble(t, func(t *testing.T, f *fixture) {
			f.list("news@a.test", account.PostAnyone, "alice@a.test")
			f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<bob@a.test>")}},
				"Return-Path: <bob@a.test>\r\n"+field+"\r\nSubject: x\r\n\r\ny\r\n", f.rcpts("news@a.test")...)
			f.start()
			f.drained()
			if got := f.mail("bob"); len(got) != 1 || !strings.Contains(got[0], "Status: 5.4.6") || len(f.mail("alice")) != 0 {
				t.Errorf("%s: bob has %q", field, got)
			}
		})
	}
}

func TestListRemovedWhileClaimed(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.list("news@a.test", account.PostAnyone, "alice@a.test")
		f.submit("<bob@a.test>", "news@a.test")
		due, err := f.sp.Claim(10)
		if err != nil || len(due) != 1 {
			t.Fatal(due, err)
		}
		if n, err := f.sp.Remove(t.Context(), spool.Filter{Recipient: "news@a.test"}, "admin"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		f.runner().deliverLocal(t.Context(), due)
		f.start()
		f.drained()
		if len(f.mail("alice")) != 0 {
			t.Error("it was delivered")
		}
	})
}

// A message whose octets have changed goes to no list, and is not dropped.
func TestListHoldsADamagedMessage(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.list("news@a.test", account.PostAnyone, "alice@a.test")
		id := f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<s@x.test>")}}, "Return-Path: <>\r\nSubject: x\r\n\r\nUNIQUE-MARK\r\n", f.rcpts("news@a.test")...)
		flip(t, f.dir, "UNIQUE-MARK")
		f.start()
		settle()
		if q := f.queue(); !slices.Equal(q, []string{"news@a.test hold"}) || len(f.mail("alice")) != 0 {
			t.Errorf("the queue holds %q", q)
		}
		f.halt()
		flip(t, f.dir, "uNIQUE-MARK")
		if n, err := f.sp.Resume(t.Context(), spool.Filter{ID: id}, "admin"); n != 1 || err != nil {
			t.Fatal(n, err)
		}
		f.start()
		f.drained()
		if len(f.mail("alice")) != 1 {
			t.Errorf("alice has %d", len(f.mail("alice")))
		}
	})
}

// With no room for what members get, the list waits.
func TestListOnAFullDisk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := storetest.NewFaultFS()
		f := newFixtureOn(t, disk)
		f.list("news@a.test", account.PostAnyone, "alice@a.test", "bob@a.test")
		f.submit("<s@x.test>", "news@a.test")
		disk.SetFree(0)
		f.start()
		f.pass(time.Minute)
		if q := f.queue(); !slices.Equal(q, []string{"news@a.test deferred"}) {
			t.Errorf("the queue holds %q", q)
		}
		disk.SetFree(1 << 40)
		f.pass(time.Hour)
		f.drained()
		if len(f.mail("alice")) != 1 || len(f.mail("bob")) != 1 {
			t.Errorf("alice has %d, bob %d", len(f.mail("alice")), len(f.mail("bob")))
		}
	})
}

// At every operation of the disk that fails, and whatever of it was done, each member has the message once in the end.
func TestListWithAFaultAtEachStep(t *testing.T) {
	for _, fault := range []storetest.Fault{storetest.NotDone, storetest.Done, storetest.Half, storetest.Full} {
		op := 0
		for tripped := true; tripped; op++ {
			synctest.Test(t, func(t *testing.T) { tripped = listFailsAt(t, op, fault) })
		}
		if op < 3 {
			t.Errorf("%s: only %d operations were there to fail", fault, op-1)
		}
	}
}

func listFailsAt(t *testing.T, op int, fault storetest.Fault) bool {
	disk := storetest.NewFaultFS()
	f := newFixtureOn(t, disk)
	f.list("news@a.test", account.PostAnyone, "alice@a.test", "bob@a.test")
	rcpts := f.rcpts("news@a.test")
	rcpts[0].Notify = envelope.NotifySuccess
	f.accept(&spool.Message{Envelope: envelope.Envelope{From: path("<bob@a.test>")}}, letter, rcpts...)
	disk.FailAt(len(disk.Ops())+op, fault, true)
	f.start()
	f.pass(2 * time.Second)
	tripped := disk.Tripped()
	disk.FailAt(-1, fault, false)
	f.reopen()
	f.start()
	f.pass(time.Hour)
	f.drained()
	if a, b := len(f.mail("alice")), len(f.mail("bob")); a != 1 || b != 2 {
		t.Errorf("%s at operation %d: alice has %d, bob %d with the report", fault, op, a, b)
	}
	return tripped
}

// The same when the power goes at each operation, whatever the disk has kept of what was not synced.
func TestListWithAPowerCutAtEachStep(t *testing.T) {
	for _, keep := range storetest.Keeps {
		op := 0
		for tripped := true; tripped; op++ {
			synctest.Test(t, func(t *testing.T) { tripped = listIsCutAt(t, op, keep) })
		}
		if op < 3 {
			t.Errorf("%s: only %d operations were there to cut", keep, op-1)
		}
	}
}

func listIsCutAt(t *testing.T, op int, keep storetest.Keep) bool {
	disk := storetest.NewFaultFS()
	f := newFixtureOn(t, disk)
	f.list("news@a.test", account.PostAnyone, "alice@a.test", "bob@a.test")
	f.submit("<s@x.test>", "news@a.test")
	disk.FailAt(len(disk.Ops())+op, storetest.Cut, true)
	f.start()
	f.pass(2 * time.Second)
	tripped := disk.Tripped()
	f.halt()
	f.st.Close() // may fail: the disk is dead
	disk.Crash(keep, uint64(op))
	f.open()
	f.start()
	f.pass(time.Hour)
	f.drained()
	if a, b := len(f.mail("alice")), len(f.mail("bob")); a != 1 || b != 1 {
		t.Errorf("%s at operation %d: alice has %d, bob %d", keep, op, a, b)
	}
	return tripped
}

// Whenever the process ends, each member has each message once.
func TestListStoppedAnywhere(t *testing.T) {
	bubble(t, func(t *testing.T, f *fixture) {
		f.list("news@a.test", account.PostAnyone, "alice@a.test", "inner@a.test")
		f.list("inner@a.test", account.PostAnyone, "bob@a.test")
		for i := range 50 {
			f.submit(fmt.Sprintf("<s%d@x.test>", i), "news@a.test")
		}
		for range 20 {
			f.start()
			f.halt()
			f.reopen()
		}
		f.start()
		f.drained()
		if a, b := len(f.mail("alice")), len(f.mail("bob")); a != 50 || b != 50 {
			t.Errorf("alice has %d, bob %d", a, b)
		}
	})
}

// The largest list is one transaction.
func TestLargestList(t *testing.T) {
	f := newFixture(t)
	members := make([]string, 10_000)
	for i := range members {
		members[i] = fmt.Sprintf("reader%d@y%d.test", i, i%100)
	}
	f.list("news@a.test", account.PostAnyone, members...)
	if _, err := f.ac.AddMembers(path("news@a.test"), []envelope.Address{path("more@y.test")}); err == nil {
		t.Error("a list has more members than it may")
	}
	f.submit("<s@x.test>", "news@a.test")
	due, err := f.sp.Claim(10)
	if err != nil || len(due) != 1 {
		t.Fatal(due, err)
	}
	before, began := f.st.Stats(), time.Now()
	f.runner().deliverLocal(t.Context(), due)
	took, after := time.Since(began), f.st.Stats()
	if n := len(f.queue()); n != len(members) || after.Updates != before.Updates+1 {
		t.Errorf("%d recipients in %d updates", n, after.Updates-before.Updates)
	}
	t.Logf("%d members took %v", len(members), took)
}

func TestCopyForList(t *testing.T) {
	list := path("news@a.test")
	for _, c := range []struct{ name, in, want string }{
		{"nothing", "", ""},
		{"no fields of lists", "Subject: x\r\n\r\nbody", "Subject: x\r\n\r\nbody"},
		{"those of another list", "A: 1\r\nLIST-ID : <x.y>\r\nList-Post:\r\n <mailto:x@y>\r\n\tmore\r\nB: 2\r\nprecedence: bulk\r\n\r\nList-Id: body", "A: 1\r\nB: 2\r\n\r\nList-Id: body"},
		{"all there is", "List-Id: <x.y>\r\n", ""},
		{"the last without a line end", "A: 1\r\nList-Id: <x.y>", "A: 1\r\n"},
		{"names that begin alike", "List-Idea: 1\r\nX-List-Id: 2\r\nList: 3\r\n", "List-Idea: 1\r\nX-List-Id: 2\r\nList: 3\r\n"},
		{"lines that end in LF alone", "A: 1\nList-Id: <x.y>\n z\nB: 2\n\nList-Id: body\n", "A: 1\nB: 2\n\nList-Id: body\n"},
		{"a line without a colon", "A: 1\r\nList-Id\r\nB: 2\r\n", "A: 1\r\nList-Id\r\nB: 2\r\n"},
		{"a long line", "List-Help: " + strings.Repeat("x", 100_000) + "\r\nA: " + strings.Repeat("y", 100_000) + "\r\n\r\nb", "A: " + strings.Repeat("y", 100_000) + "\r\n\r\nb"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range []io.Reader{strings.NewReader(c.in), iotest.OneByteReader(strings.NewReader(c.in)), iotest.DataErrReader(strings.NewReader(c.in))} {
				var out bytes.Buffer
				if err := copyForList(&out, r, list); err != nil || out.String() != c.want {
					t.Errorf("got %.200q, %v; want %.200q", out.String(), err, c.want)
				}
			}
		})
	}
	if err := copyForList(io.Discard, io.MultiReader(strings.NewReader("A: 1\r\n"), iotest.ErrReader(store.ErrDamaged)), list); err != store.ErrDamaged {
		t.Errorf("a damaged header gives %v", err)
	}
	if err := copyForList(io.Discard, io.MultiReader(strings.NewReader("A: 1\r\n\r\nbody"), iotest.ErrReader(store.ErrDamaged)), list); err != store.ErrDamaged {
		t.Errorf("a damaged body gives %v", err)
	}
}

// Whatever a message is, the copy is the message without whole fields, and the fields of lists are gone from its header.
func FuzzCopyForList(f *testing.F) {
	f.Add([]byte("A: 1\r\nList-Id: <x.y>\r\n z\r\n\r\nList-Id: body"))
	f.Add([]byte("List-Post:\r\n\r\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		var out bytes.Buffer
		err := copyForList(&out, iotest.HalfReader(bytes.NewReader(text)), path("news@a.test"))
		if err != nil {
			if _, ok := err.(*notForList); !ok {
				t.Fatal(err)
			}
			return
		}
		var want []byte
		rest, drop := text, false
		for len(rest) > 0 {
			line, after, found := bytes.Cut(rest, []byte("\n"))
			if found {
				line = rest[:len(line)+1]
			}
			if line[0] != ' ' && line[0] != '\t' {
				if len(bytes.TrimRight(line, "\r\n")) == 0 {
					break
				}
				name, _, colon := bytes.Cut(line, []byte(":"))
				drop = colon && slices.Contains(listOnly[:], strings.ToLower(string(bytes.TrimRight(name, " \t"))))
			}
			if !drop {
				want = append(want, line...)
			}
			rest = after
		}
		if want = append(want, rest...); !bytes.Equal(out.Bytes(), want) {
			t.Fatalf("%q became %q, want %q", text, out.Bytes(), want)
		}
	})
}

func BenchmarkExpand(b *testing.B) {
	f := newFixture(b)
	members := make([]string, 1000)
	for i := range members {
		members[i] = fmt.Sprintf("reader%d@y%d.test", i, i%100)
	}
	f.list("news@a.test", account.PostAnyone, members...)
	r := f.runner()
	for b.Loop() {
		b.StopTimer()
		f.submit("<s@x.test>", "news@a.test")
		due, err := f.sp.Claim(1)
		if err != nil || len(due) != 1 || !due[0].Recipient.List {
			b.Fatal(due, err)
		}
		b.StartTimer()
		r.expand(b.Context(), due[0])
		b.StopTimer()
		if _, err := f.sp.Remove(b.Context(), spool.Filter{}, "bench"); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}
