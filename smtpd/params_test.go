package smtpd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"postroad/internal/account"
	"postroad/internal/envelope"
	"postroad/smtpd/wire"
)

// noon is when the parameters of these tests are given.
var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// offers are what sessions of each kind offer.
var offers = map[string]offer{
	"mx":         {kind: MX, size: 1000, now: noon},
	"mx tls":     {kind: MX, tls: true, size: 1000, now: noon},
	"submission": {kind: Submission, tls: true, logins: true, size: 1000, now: noon},
	"lmtp":       {kind: LMTP, size: 1000, now: noon, unwanted: []string{"net.example:ADV"}},
}

// mailFrom reads the argument of MAIL.
func (o offer) mailFrom(arg string) (e envelope.Envelope, list []wire.Param, err error) {
	if _, list, err = wire.Path(arg, "FROM:"); err == nil {
		err = o.mail(&e, list)
	}
	return e, list, err
}

func (o offer) rcptTo(arg string) (r envelope.Recipient, err error) {
	_, list, err := wire.Path(arg, "TO:")
	if err == nil {
		err = o.rcpt(&r, list)
	}
	return r, err
}

func TestEHLOOffers(t *testing.T) {
	common := []string{"SIZE 1000", "8BITMIME", "BINARYMIME", "SMTPUTF8", "DSN", "DELIVERBY 60", "MT-PRIORITY", "RRVS"}
	for name, more := range map[string][]string{
		"mx":         {"NO-SOLICITING"},
		"mx tls":     {"NO-SOLICITING", "REQUIRETLS"},
		"submission": {"NO-SOLICITING", "REQUIRETLS", "FUTURERELEASE 5184000 2027-01-19T12:00:00Z"},
		"lmtp":       {"NO-SOLICITING net.example:ADV"},
	} {
		got, want := offers[name].lines(), slices.Concat(common, more)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s offers %q, want %q", name, got, want)
		}
	}
}

func TestMailParams(t *testing.T) {
	in := func(d time.Duration) time.Time { return noon.Add(d) }
	for _, tt := range []struct {
		params string
		want   envelope.Envelope
	}{
		{"", envelope.Envelope{}},
		{"SIZE=0", envelope.Envelope{}},
		{"SIZE=1000", envelope.Envelope{}},
		{"size=00000000000000001000", envelope.Envelope{}},
		{"BODY=8bitmime", envelope.Envelope{Body: envelope.Body8Bit}},
		{"BODY=BINARYMIME SMTPUTF8", envelope.Envelope{Body: envelope.BodyBinary, UTF8: true}},
		{"RET=HDRS ENVID=QQ+2B314159", envelope.Envelope{Return: envelope.ReturnHeaders, ID: "QQ+314159"}},
		{"REQUIRETLS", envelope.Envelope{RequireTLS: true}},
		{"BY=60;R", envelope.Envelope{DeliverBy: envelope.DeliverBy{Deadline: in(time.Minute), Return: true}}},
		{"BY=-5;NT", envelope.Envelope{DeliverBy: envelope.DeliverBy{Deadline: in(-5 * time.Second), Trace: true}}},
		{"MT-PRIORITY=9", envelope.Envelope{Priority: 9}},
		{"mt-priority=-9", envelope.Envelope{Priority: -9}},
		{"HOLDFOR=1", envelope.Envelope{Release: in(time.Second)}},
		{"HOLDFOR=5184000", envelope.Envelope{Release: in(60 * 24 * time.Hour)}},
		{"HOLDUNTIL=2026-11-20T14:00:00+01:00", envelope.Envelope{Release: in(time.Hour)}},
		{"HOLDFOR=60 BY=61;R", envelope.Envelope{Release: in(time.Minute), DeliverBy: envelope.DeliverBy{Deadline: in(61 * time.Second), Return: true}}},
		{"SOLICIT=net.example:ADV,org.example:ADLT", envelope.Envelope{Solicit: "net.example:ADV,org.example:ADLT"}},
		{"AUTH=<>", envelope.Envelope{}},
		{"AUTH=a+2Bb@x.test", envelope.Envelope{}},
	} {
		got, _, err := offers["submission"].mailFrom("FROM:<a@x.test> " + tt.params)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v", tt.params, got, err, tt.want)
		}
	}
}

func TestMailParamsRefused(t *testing.T) {
	for _, tt := range []struct {
		session, params string
		want            string // the reply's codes
	}{
		{"mx", "NONSENSE", "555 5.5.4"},
		{"mx", "NONSENSE=1", "555 5.5.4"},
		{"mx", "NOTIFY=NEVER", "555 5.5.4"}, // of RCPT
		{"mx", "SIZE=1001", "552 5.3.4"},
		{"mx", "SIZE=100000", "552 5.3.4"},
		{"mx", "SIZE=18446744073709551616", "552 5.3.4"},
		{"mx", "SIZE=99999999999999999999", "552 5.3.4"},
		{"mx", "SIZE=000000000000000000001", "501 5.5.4"},
		{"mx", "SIZE=" + strings.Repeat("9", 2000), "501 5.5.4"},
		{"mx", "SIZE=-1", "501 5.5.4"},
		{"mx", "SIZE=+1", "501 5.5.4"},
		{"mx", "SIZE=1_0", "501 5.5.4"},
		{"mx", "SIZE=0x10", "501 5.5.4"},
		{"mx", "SIZE", "501 5.5.4"},
		{"mx", "SIZE=", "501 5.5.4"},
		{"mx", "SIZE=1 SIZE=1", "501 5.5.4"},
		{"mx", "SIZE=1 size=2", "501 5.5.4"},
		{"mx", "BODY=9BITMIME", "501 5.5.4"},
		{"mx", "BODY", "501 5.5.4"},
		{"mx", "SMTPUTF8=1", "501 5.5.4"},
		{"mx", "RET=FULL,HDRS", "501 5.5.4"},
		{"mx", "ENVID=+00", "501 5.5.4"},
		{"mx", "ENVID=a+0D+0Ab", "501 5.5.4"},
		{"mx", "ENVID=" + strings.Repeat("x", 101), "501 5.5.4"},
		{"mx", "AUTH=<>", "555 5.5.4"},      // nobody logs in here
		{"mx", "REQUIRETLS", "555 5.5.4"},   // came in the clear
		{"lmtp", "HOLDFOR=60", "555 5.5.4"}, // of submission only
		{"mx tls", "HOLDFOR=60", "555 5.5.4"},
		{"mx tls", "REQUIRETLS=yes", "501 5.5.4"},
		{"mx", "BY=0;R", "501 5.5.4"},
		{"mx", "BY=-1;R", "501 5.5.4"},
		{"mx", "BY=59;R", "555 5.5.4"},
		{"mx", "BY=60", "501 5.5.4"},
		{"mx", "BY=1000000000;N", "501 5.5.4"},
		{"mx", "MT-PRIORITY=10", "501 5.5.4"},
		{"mx", "MT-PRIORITY=+1", "501 5.5.4"},
		{"mx", "MT-PRIORITY=-0", "501 5.5.4"},
		{"submission", "HOLDFOR=0", "501 5.5.4"},
		{"submission", "HOLDFOR=01", "501 5.5.4"},
		{"submission", "HOLDFOR=-1", "501 5.5.4"},
		{"submission", "HOLDFOR=5184001", "501 5.5.4"},
		{"submission", "HOLDFOR=999999999", "501 5.5.4"},
		{"submission", "HOLDFOR=1000000000", "501 5.5.4"},
		{"submission", "HOLDFOR=" + strings.Repeat("9", 500), "501 5.5.4"},
		{"submission", "HOLDUNTIL=2026-11-20T12:00:00Z", "501 5.5.4"},
		{"submission", "HOLDUNTIL=2020-01-01T00:00:00Z", "501 5.5.4"},
		{"submission", "HOLDUNTIL=2027-01-19T12:00:01Z", "501 5.5.4"},
		{"submission", "HOLDUNTIL=9999-12-31T23:59:59Z", "501 5.5.4"},
		{"submission", "HOLDUNTIL=tomorrow", "501 5.5.4"},
		{"submission", "HOLDFOR=60 HOLDUNTIL=2026-11-20T13:00:00Z", "501 5.5.4"},
		{"submission", "HOLDUNTIL=2026-11-20T13:00:00Z HOLDFOR=60", "501 5.5.4"},
		{"submission", "HOLDFOR=60 BY=60;R", "501 5.5.4"},
		{"submission", "BY=10;N HOLDFOR=60", "501 5.5.4"},
		{"submission", "AUTH=a", "501 5.5.4"},
		{"submission", "AUTH=a@x.test+00", "501 5.5.4"},
		{"submission", "AUTH=a+40b@@x.test", "501 5.5.4"},
		{"submission", "AUTH", "501 5.5.4"},
		{"mx", "SOLICIT=1", "501 5.5.4"},
		{"mx", "SOLICIT=a," + strings.Repeat("a", 999), "501 5.5.4"},
		{"lmtp", "SOLICIT=x:a,NET.example:adv", "550 5.7.1"},
	} {
		_, _, err := offers[tt.session].mailFrom("FROM:<a@x.test> " + tt.params)
		if got := codes(err); got != tt.want {
			t.Errorf("%s, %.60s: %v, want %s", tt.session, tt.params, err, tt.want)
		}
	}
}

// codes are the reply and enhanced codes of a refusal.
func codes(err error) string {
	if r, ok := errors.AsType[*wire.Reply](err); ok {
		return fmt.Sprint(r.Code, " ", r.Enhanced)
	}
	return fmt.Sprint(err)
}

func TestNothingGluedToAPathIsAParameter(t *testing.T) {
	for _, arg := range []string{
		"FROM:<a@x.test>SIZE=1", "FROM:<a@x.test>\tSIZE=1", "FROM:<a@x.test> SIZE=1\tBODY=7BIT", "FROM:<a@x.test> SIZE=1;BODY=7BIT",
		"FROM:<a@x.test> SIZE =1", "FROM:<a@x.test> SIZE= 1", "FROM:<a@x.test> =1", "FROM:<a@x.test> -SIZE=1", "FROM:<a@x.test> SIZE==1",
	} {
		if e, _, err := offers["submission"].mailFrom(arg); codes(err) != "501 5.5.4" {
			t.Errorf("%q: %+v, %v", arg, e, err)
		}
	}
}

func TestPriorityOfStrangers(t *testing.T) {
	for _, tt := range []struct {
		session, params string
		want            int
		reply           string
	}{
		{"mx", "MT-PRIORITY=4", 0, "250 2.3.6 0 is the message's priority: only who logs in may raise it"},
		{"mx", "MT-PRIORITY=0", 0, "250 2.1.0 sender ok"},
		{"mx", "MT-PRIORITY=-4", -4, "250 2.1.0 sender ok"},
		{"mx", "", 0, "250 2.1.0 sender ok"},
		{"submission", "MT-PRIORITY=4", 4, "250 2.1.0 sender ok"},
		{"lmtp", "MT-PRIORITY=4", 4, "250 2.1.0 sender ok"},
	} {
		e, list, err := offers[tt.session].mailFrom("FROM:<a@x.test> " + tt.params)
		if got := mailReply(&e, list).Error(); err != nil || e.Priority != tt.want || got != tt.reply {
			t.Errorf("%s, %s: priority %d, %s, %v", tt.session, tt.params, e.Priority, got, err)
		}
	}
}

func TestRcptParams(t *testing.T) {
	utf8 := offers["mx"]
	utf8.utf8 = true
	for _, tt := range []struct {
		o      offer
		params string
		want   envelope.Recipient
	}{
		{utf8, "", envelope.Recipient{}},
		{offers["mx"], "NOTIFY=NEVER", envelope.Recipient{Notify: envelope.NotifyNever}},
		{offers["mx"], "NOTIFY=SUCCESS,delay ORCPT=rfc822;Bob+2Bx@x.test", envelope.Recipient{
			Notify: envelope.NotifySuccess | envelope.NotifyDelay, Original: "rfc822;Bob+x@x.test",
		}},
		{offers["mx"], `ORCPT=utf-8;J\x{F6}rg@x.test`, envelope.Recipient{Original: "utf-8;Jörg@x.test"}},
		{utf8, "ORCPT=utf-8;Jörg@x.test", envelope.Recipient{Original: "utf-8;Jörg@x.test"}},
		{offers["lmtp"], "RRVS=2026-11-20T12:00:00Z;C", envelope.Recipient{ValidSince: noon, ValidContinue: true}},
	} {
		got, err := tt.o.rcptTo("TO:<b@x.test> " + tt.params)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v", tt.params, got, err, tt.want)
		}
	}
	for params, want := range map[string]string{
		"SIZE=1": "555 5.5.4", "X": "555 5.5.4", "NOTIFY": "501 5.5.4", "NOTIFY=NEVER,SUCCESS": "501 5.5.4", "NOTIFY=SUCCESS NOTIFY=DELAY": "501 5.5.4",
		"ORCPT=utf-8;Jörg@x.test": "501 5.5.4", "ORCPT=rfc822;a+0D+0Ab": "501 5.5.4", "ORCPT=rfc822;a+00": "501 5.5.4", "ORCPT=rfc822": "501 5.5.4",
		"ORCPT=rfc822;" + strings.Repeat("a", 494): "501 5.5.4", "RRVS=now": "501 5.5.4", "RRVS=2026-11-20T12:00:00Z;X": "501 5.5.4", "RRVS": "501 5.5.4",
	} {
		if r, err := offers["mx"].rcptTo("TO:<b@x.test> " + params); codes(err) != want {
			t.Errorf("%.60s: %+v, %v; want %s", params, r, err, want)
		}
	}
}

func TestSameOwner(t *testing.T) {
	made := noon
	broken := errors.New("the disk is gone")
	find := func(id account.ID) (account.Account, error) {
		if id == 3 {
			return account.Account{}, broken
		}
		return account.Account{ID: id, Created: made}, nil
	}
	one, away := account.Target{Account: 1}, account.Target{}
	person, role := envelope.Address{Local: "alice", Domain: "example.test"}, envelope.Address{Local: "Postmaster", Domain: "example.test"}
	for _, tt := range []struct {
		name    string
		addr    envelope.Address
		since   time.Time
		targets []account.Target
		want    error
	}{
		{"not asked for", person, time.Time{}, []account.Target{one}, nil},
		{"made before", person, noon.Add(time.Second), []account.Target{one}, nil},
		{"made just then", person, noon, []account.Target{one}, nil},
		{"made after", person, noon.Add(-time.Second), []account.Target{one}, replyOwner},
		{"made after, of a role", role, noon.Add(-time.Second), []account.Target{one}, nil},
		{"somewhere else", person, noon.Add(-time.Second), []account.Target{away}, nil},
		{"several", person, noon.Add(-time.Second), []account.Target{one, one}, nil},
		{"nobody", person, noon.Add(-time.Second), nil, nil},
		{"trouble", person, noon, []account.Target{{Account: 3}}, broken},
	} {
		if err := sameOwner(tt.addr, tt.since, tt.targets, find); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// checkRefusal holds an error of the parameters against what replies there are.
func checkRefusal(t *testing.T, err error) {
	t.Helper()
	if !slices.Contains([]string{"501 5.5.4", "552 5.3.4", "550 5.7.1", "555 5.5.4"}, codes(err)) {
		t.Fatalf("refused with %v", err)
	}
}

func FuzzMailParams(f *testing.F) {
	for _, s := range []string{
		"SIZE=1000 BODY=BINARYMIME SMTPUTF8 RET=FULL ENVID=a+2Bb", "AUTH=<> REQUIRETLS BY=120;RT MT-PRIORITY=-3", "HOLDFOR=60 SOLICIT=a:b,c",
		"HOLDUNTIL=2026-11-20T13:00:00.5+01:00 BY=-3;N", "SIZE=99999999999999999999", "AUTH=a+40b", "ENVID=+0D", "X", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, params string) {
		for name, o := range offers {
			e, _, err := o.mailFrom("FROM:<a@x.test> " + params)
			if err != nil {
				checkRefusal(t, err)
				continue
			}
			held := !e.Release.IsZero()
			switch {
			case o.kind == MX && e.Priority > 0 || e.Priority < -9 || e.Priority > 9:
				t.Fatalf("%s: %q gives priority %d", name, params, e.Priority)
			case held && (o.kind != Submission || !e.Release.After(noon) || e.Release.After(noon.Add(mostHold))):
				t.Fatalf("%s: %q is held until %s", name, params, e.Release)
			case e.DeliverBy.Return && e.DeliverBy.Deadline.Before(noon.Add(leastDeadline)):
				t.Fatalf("%s: %q is to be there by %s", name, params, e.DeliverBy.Deadline)
			case e.RequireTLS && !o.tls:
				t.Fatalf("%s: %q needs TLS, and had none", name, params)
			case strings.ContainsFunc(e.ID+e.Solicit, func(r rune) bool { return r < ' ' || r > '~' }):
				t.Fatalf("%s: %q lets %q and %q through", name, params, e.ID, e.Solicit)
			}
		}
	})
}

func FuzzRcptParams(f *testing.F) {
	for _, s := range []string{
		"NOTIFY=SUCCESS,FAILURE,DELAY ORCPT=rfc822;a+2Bb@x.test", "NOTIFY=NEVER RRVS=2026-11-20T12:00:00Z;C", `ORCPT=utf-8;\x{F6}ö`, "ORCPT=;", "X=1", "",
	} {
		f.Add(s, true)
	}
	f.Fuzz(func(t *testing.T, params string, utf8 bool) {
		o := offers["mx"]
		o.utf8 = utf8
		r, err := o.rcptTo("TO:<b@x.test> " + params)
		if err != nil {
			checkRefusal(t, err)
			return
		}
		if strings.ContainsFunc(r.Original, func(r rune) bool { return r < ' ' || r == 0x7f }) || !envelope.IsASCII(envelope.EncodeOriginal(r.Original)) {
			t.Fatalf("%q lets %q through", params, r.Original)
		}
		if r.Notify&envelope.NotifyNever != 0 && r.Notify != envelope.NotifyNever {
			t.Fatalf("%q reports %s", params, r.Notify)
		}
	})
}

// TestOwnerOfAliasOnly: what the sender knows of the owner of an alias goes no further than the alias (RFC 7293, 8.2).
func TestOwnerOfAliasOnly(t *testing.T) {
	h := open(t, MX, false)
	h.dial(t).talk(hello + `
		> MAIL FROM:<x@far.test>
		< 250
		> RCPT TO:<away@example.test> RRVS=2019-01-01T00:00:00Z;C
		< 250
		> RCPT TO:<bob@example.test> RRVS=2026-01-01T00:00:00Z;C
		< 250
		> DATA
		< 354
		> .
		< 250`)
	rcpts := h.queue.messages()[0].rcpts
	if got := rcpts[0]; !got.ValidSince.IsZero() || got.ValidContinue {
		t.Errorf("beyond the alias it goes on: %+v", got)
	}
	if got := rcpts[1]; got.ValidSince.IsZero() || !got.ValidContinue {
		t.Errorf("of a mailbox it is lost: %+v", got)
	}
}

// TestSolicitationField: what MAIL has not said of solicitation, the header says (RFC 3865, 2.3 and 2.7).
func TestSolicitationField(t *testing.T) {
	h := open(t, MX, false, func(c *Config) { c.NoSoliciting = []string{"net.example:ADV"} })
	for _, test := range []struct{ name, params, field, want, kept string }{
		{"none", "", "", "250", ""},
		{"as MAIL says", " SOLICIT=a:b", "Solicitation: a:b\r\n", "250", "a:b"},
		{"MAIL says another", " SOLICIT=a:b", "Solicitation: c:d\r\n", "250", "a:b"},
		{"the header alone", "", "SOLICITATION:  a:b,c:d\r\n", "250", "a:b,c:d"},
		{"what is none", "", "Solicitation: a, b\r\n", "250", ""},
		{"only in the body", "", "\r\nSolicitation: net.example:ADV\r\n", "250", ""},
		{"not taken", "", "Solicitation: a:b,net.EXAMPLE:adv\r\n", "550 5.7.1 no soliciting: mail of this class is not taken here, SOLICIT=net.EXAMPLE:adv", ""},
		{"not taken, whatever MAIL says", " SOLICIT=a:b", "Solicitation: net.example:ADV\r\n", "550 5.7.1", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(h.queue.messages())
			c := h.dial(t)
			c.talk(hello + "> MAIL FROM:<x@far.test>" + test.params + "\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354")
			c.send("From: x@far.test\r\n" + test.field + "\r\nx\r\n.\r\n")
			c.expect(test.want)
			after := h.queue.messages()[before:]
			switch {
			case test.want != "250" && len(after) != 0:
				t.Error("it was accepted")
			case test.want == "250" && (len(after) != 1 || after[0].Envelope.Solicit != test.kept):
				t.Errorf("accepted %+v, want one with %q", after, test.kept)
			}
		})
	}
}

// TestTLSRequiredField: the header may waive what policies ask of TLS, unless MAIL asks for TLS all the way (RFC 8689, 3).
func TestTLSRequiredField(t *testing.T) {
	h := open(t, MX, false)
	for _, test := range []struct {
		name, params, fields string
		want                 bool
	}{
		{"none", "", "", false},
		{"as it is written", "", "TLS-Required: No\r\n", true},
		{"in other letters, folded", "", "tls-required:\r\n no \r\n", true},
		{"another word", "", "TLS-Required: Yes\r\n", false},
		{"more words", "", "TLS-Required: No, thanks\r\n", false},
		{"empty", "", "TLS-Required:\r\n", false},
		{"in the body", "", "\r\nTLS-Required: No\r\n", false},
		{"beside REQUIRETLS", " REQUIRETLS", "TLS-Required: No\r\n", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := len(h.queue.messages())
			c := h.dial(t)
			c.talk(hello + "> STARTTLS\n< 220")
			c.startTLS()
			c.talk("> EHLO far.test\n< 250\n> MAIL FROM:<x@far.test>" + test.params + "\n< 250\n> RCPT TO:<alice@example.test>\n< 250\n> DATA\n< 354")
			c.send("From: x@far.test\r\n" + test.fields + "\r\nx\r\n.\r\n")
			c.expect("250")
			e := h.queue.messages()[before].Envelope
			if e.TLSOptional != test.want || e.RequireTLS != (test.params != "") {
				t.Errorf("%+v", e)
			}
		})
	}
}
