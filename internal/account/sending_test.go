package account

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"postroad/internal/store"
)

// sender is a@x.test with a clock that the test sets.
type sender struct {
	testing.TB
	*Directory
	Account
	at time.Time
}

func newSender(t testing.TB) *sender {
	d := populated(t)
	a, err := d.Get(addr("a@x.test"))
	if err != nil {
		t.Fatal(err)
	}
	s := &sender{t, d, a, time.Date(2026, 11, 20, 23, 0, 0, 0, time.UTC)}
	d.now = func() time.Time { return s.at }
	return s
}

// send asks for a message as smtpd does, and says where it ends: at MAIL, at the first RCPT that is refused, or at the end of
// the data; or that it was sent.
func (s *sender) send(may Allowance, to ...string) string {
	s.Helper()
	m, err := s.Sending(s.Account, may)
	if err != nil {
		return s.refused("MAIL", err)
	}
	for _, rcpt := range to {
		if err := m.To(addr(rcpt)); err != nil {
			return s.refused("RCPT "+rcpt, err)
		}
	}
	if err := s.st.Update(m.Count); err != nil {
		return s.refused("data", err)
	}
	return "sent"
}

func (s *sender) refused(where string, err error) string {
	s.Helper()
	if _, ok := errors.AsType[*Spent](err); !ok {
		s.Fatalf("%s: %v", where, err)
	}
	return where
}

func (s *sender) sent() Sent {
	s.Helper()
	sent, err := s.SentToday(s.ID)
	if err != nil {
		s.Fatal(err)
	}
	return sent
}

// known counts the addresses that are remembered.
func (s *sender) known() (n int) {
	_ = s.st.View(func(r store.Reader) error {
		for range r.Scan(knownTo(s.ID), knownTo(s.ID).End()) {
			n++
		}
		return nil
	})
	return n
}

func TestDailyLimits(t *testing.T) {
	type message struct{ to, want string }
	for _, c := range []struct {
		name string
		may  Allowance
		msgs []message
		sent Sent
	}{
		{"messages", Allowance{Messages: 2}, []message{{"b@x.test", "sent"}, {"", "sent"}, {"b@x.test", "MAIL"}}, Sent{2, 1, 0}},
		{"recipients", Allowance{Recipients: 3}, []message{{"1@f.test 2@f.test", "sent"}, {"1@f.test 2@f.test", "RCPT 2@f.test"}, {"1@f.test", "sent"}, {"1@f.test", "RCPT 1@f.test"}}, Sent{2, 3, 0}},
		{"a recipient counts once in a message", Allowance{Recipients: 1}, []message{{"1@f.test 1@F.test", "sent"}}, Sent{1, 1, 0}},
		{"new recipients", Allowance{New: 2}, []message{{"1@f.test", "sent"}, {"1@f.test 2@f.test", "sent"}, {"1@f.test 2@F.TEST", "sent"}, {"1@f.test 3@f.test", "RCPT 3@f.test"}}, Sent{3, 5, 2}},
		{"new ones within a message", Allowance{New: 2}, []message{{"1@f.test 2@f.test 3@f.test", "RCPT 3@f.test"}, {"1@f.test 2@f.test", "sent"}}, Sent{1, 2, 2}},
		{"ours are recipients as others are", Allowance{Recipients: 2}, []message{{"b@x.test", "sent"}, {"a@x.test", "sent"}, {"a@X.test", "RCPT a@X.test"}}, Sent{2, 2, 0}},
		{"but not new", Allowance{New: 1}, []message{{"b@x.test a@X.TEST nobody@x.test", "sent"}, {"1@f.test a@x.test", "sent"}, {"b@x.test 2@f.test", "RCPT 2@f.test"}}, Sent{2, 5, 1}},
		{"no limits, nothing counted", Allowance{}, []message{{"1@f.test", "sent"}}, Sent{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newSender(t)
			for i, m := range c.msgs {
				if got := s.send(c.may, strings.Fields(m.to)...); got != m.want {
					t.Errorf("message %d: %s, want %s", i, got, m.want)
				}
			}
			if got := s.sent(); got != c.sent {
				t.Errorf("counted %v, want %v", got, c.sent)
			}
			s.at = s.at.Add(time.Hour) // another day
			if got := s.sent(); got != (Sent{}) {
				t.Errorf("on the next day there are %v", got)
			}
			if got := s.send(c.may, "1@f.test"); got != "sent" {
				t.Errorf("the next day's first message: %s", got)
			}
		})
	}
}

func TestSpentSaysWhen(t *testing.T) {
	s := newSender(t)
	s.send(Allowance{Messages: 1})
	_, err := s.Sending(s.Account, Allowance{Messages: 1})
	if want := "your account has sent 1 messages today; more of this is possible from 2026-11-21 00:00 UTC on"; err == nil || err.Error() != want {
		t.Errorf("said %v", err)
	}
}

func TestOwnDailyLimits(t *testing.T) {
	s := newSender(t)
	number := func(n int64) *int64 { return &n }
	change := func(own OwnAllowance) {
		t.Helper()
		var err error
		if s.Account, err = s.Set(s.Address, Settings{Daily: own}); err != nil {
			t.Fatal(err)
		}
		if s.Account, err = s.ByID(s.ID); err != nil {
			t.Fatal(err)
		}
	}
	all := Allowance{Messages: 1}
	s.send(all)
	change(OwnAllowance{Messages: number(2), Recipients: number(7)})
	if got := s.send(all) + " " + s.send(all); got != "sent MAIL" {
		t.Errorf("with 2 of its own: %s", got)
	}
	change(OwnAllowance{Messages: number(0)})
	if got := s.send(all); got != "sent" || *s.Daily.Recipients != 7 {
		t.Errorf("with none of its own: %s, and %d", got, *s.Daily.Recipients)
	}
	change(OwnAllowance{Messages: number(Configured), Recipients: number(Configured)})
	if got := s.send(all); got != "MAIL" || s.Daily != (OwnAllowance{}) {
		t.Errorf("as configured again: %s, %+v", got, s.Daily)
	}
	if _, err := s.Set(s.Address, Settings{Daily: OwnAllowance{New: number(-2)}}); !errors.Is(err, ErrSetting) {
		t.Errorf("a negative limit: %v", err)
	}
	perhaps := Switch("perhaps")
	if _, err := s.Set(s.Address, Settings{SaveSent: &perhaps}); !errors.Is(err, ErrSetting) {
		t.Errorf("a switch that is no switch: %v", err)
	}
}

// Many connections at once send no more than one may.
func TestDailyLimitsHoldForAllConnections(t *testing.T) {
	s := newSender(t)
	const most = 20
	var begun, ended sync.WaitGroup
	sent := make(chan bool, 3*most)
	for i := range 3 * most {
		begun.Add(1)
		ended.Go(func() {
			m, err := s.Sending(s.Account, Allowance{Messages: most, Recipients: most, New: most})
			if err == nil {
				err = m.To(addr(fmt.Sprintf("%d@f.test", i)))
			}
			begun.Done()
			begun.Wait() // all have been told that they may
			sent <- err == nil && s.st.Update(m.Count) == nil
		})
	}
	ended.Wait()
	close(sent)
	n := int64(0)
	for ok := range sent {
		if ok {
			n++
		}
	}
	if got := s.sent(); n != most || got != (Sent{most, most, most}) || s.known() != most {
		t.Errorf("%d were sent; counted %v, %d remembered", n, got, s.known())
	}
}

// What is not accepted is not counted, and nobody is remembered for it.
func TestRefusedMessagesDoNotCount(t *testing.T) {
	s := newSender(t)
	m, err := s.Sending(s.Account, Allowance{New: 5})
	if err == nil {
		err = m.To(addr("1@f.test"))
	}
	if err != nil {
		t.Fatal(err)
	}
	refused := errors.New("refused")
	err = s.st.Update(func(tx store.Tx) error { return errors.Join(m.Count(tx), refused) })
	if !errors.Is(err, refused) || s.sent() != (Sent{}) || s.known() != 0 {
		t.Errorf("%v: counted %v, %d remembered", err, s.sent(), s.known())
	}
}

// The memory of whom an account writes to is bounded; who is written to again and again stays in it.
func TestKnownRecipientsAreBounded(t *testing.T) {
	s := newSender(t)
	may := Allowance{New: 1 << 40}
	const each = 500
	for i := range 5 * generation / each {
		to := []string{"friend@f.test"}
		for n := range each {
			to = append(to, fmt.Sprintf("%d@f.test", i*each+n))
		}
		if got := s.send(may, to...); got != "sent" {
			t.Fatal(got)
		}
		if n := s.known(); n > 2*generation+each {
			t.Fatalf("%d addresses are remembered", n)
		}
	}
	if got := s.sent().New; got != 5*generation+1 {
		t.Errorf("%d were new, want %d: the friend was forgotten, or others were known", got, 5*generation+1)
	}
	s.send(may, "0@f.test")
	if got := s.sent().New; got != 5*generation+2 {
		t.Errorf("the first one is remembered for ever")
	}
	if err := s.Remove(s.Address, nil); err != nil {
		t.Fatal(err)
	}
	if n := s.known(); n != 0 || s.sent() != (Sent{}) {
		t.Errorf("%d addresses are left of a removed account, and %v", n, s.sent())
	}
	m := &Sending{d: s.Directory, id: s.ID, may: may, rcpts: []uint64{1}, away: []uint64{1}}
	if err := s.st.Update(m.Count); err != nil || s.known() != 0 {
		t.Errorf("a removed account has sent: %v, %d", err, s.known())
	}
}

func TestDamagedTally(t *testing.T) {
	s := newSender(t)
	if err := s.st.Update(func(tx store.Tx) error { tx.Put(tallyKey(s.ID), []byte{0xff}); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Sending(s.Account, Allowance{Messages: 1}); !errors.Is(err, store.ErrRecord) {
		t.Errorf("asked: %v", err)
	}
	if err := s.st.Update((&Sending{d: s.Directory, id: s.ID}).Count); !errors.Is(err, store.ErrRecord) {
		t.Errorf("counted: %v", err)
	}
}

// BenchmarkSending is what a message costs that is counted, without its commit.
func BenchmarkSending(b *testing.B) {
	s := newSender(b)
	to := addr("1@f.test")
	for name, may := range map[string]Allowance{"unlimited": {}, "limited": {1 << 40, 1 << 40, 1 << 40}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			_ = s.st.Update(func(tx store.Tx) error {
				for b.Loop() {
					m, err := s.Sending(s.Account, may)
					if err == nil {
						err = m.To(to)
					}
					if err == nil {
						err = m.Count(tx)
					}
					if err != nil {
						b.Fatal(err)
					}
				}
				return nil
			})
		})
	}
}

// Those are listed that may send no more today, by their own limit or that of all.
func TestSpentToday(t *testing.T) {
	s := newSender(t)
	spent := func(may Allowance) int {
		t.Helper()
		list, err := s.SpentToday(may, 10)
		if err != nil || len(list) > 0 && list[0] != s.Address {
			t.Fatal(list, err)
		}
		return len(list)
	}
	may := Allowance{Messages: 2}
	for i, want := range []int{0, 0, 1} {
		if i > 0 {
			s.send(may, "x@far.test")
		}
		if got := spent(may); got != want {
			t.Errorf("after %d messages: %d", i, got)
		}
	}
	if spent(Allowance{Messages: 3}) != 0 || spent(Allowance{}) != 0 || spent(Allowance{Recipients: 2}) != 1 {
		t.Error("it does not go by the limits")
	}
	s.at = s.at.Add(2 * time.Hour) // tomorrow
	if spent(may) != 0 {
		t.Error("it holds on the next day")
	}
}
