package smtpd_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/smtpd"
)

// C: relay, addresses, loops.

// A relayForm is a recipient's path, and where it may lead for somebody who has logged in: to, "-" for nowhere, "?" for
// to or nowhere as the parser has it.
type relayForm struct{ path, to string }

// relayForms reads testdata/relay.txt.
func relayForms(t *testing.T) (forms []relayForm) {
	t.Helper()
	text, err := os.ReadFile("testdata/relay.txt")
	if err != nil {
		t.Fatal(err)
	}
	names := strings.NewReplacer("{us}", "example.test", "{ext}", "elsewhere.test", "{EXT}", "ELSEWHERE.TEST")
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSuffix(line, "\n"); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		path, to, _ := strings.Cut(line, "\t")
		path, err := strconv.Unquote(`"` + strings.ReplaceAll(path, `"`, `\"`) + `"`)
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		forms = append(forms, relayForm{names.Replace(path), names.Replace(to)})
	}
	return forms
}

// wrappings are what stands round a path. The first is the right one.
var wrappings = []string{"<%s>", "%s", " <%s>", "<%s>x", "<%s", "\"alice\" <%s>", "<%s> <alice@example.test>", "alice@example.test <%s>"}

// An identity is who somebody is, or says to be.
type identity struct {
	name, from string
	login      string // AUTH, where that may be said
	peer       net.IP
}

var identities = []identity{
	{"a stranger", "sender@far.test", "", stranger},
	{"a stranger who says to be alice", "alice@example.test", "", stranger},
	{"bob, who has logged in", "bob@example.test", "AUTH PLAIN " + plain("", "bob@example.test", bobsPassword) + "\r\n", nil},
	{"this machine", "sender@far.test", "", net.IPv4(127, 0, 0, 1)},
}

// TestC01Relay: no way to write a recipient takes a stranger's mail anywhere but to accounts here, whoever he is,
// whoever he says to be, on any listener; and one who may send anywhere sends to the address that he gave or to nobody.
func TestC01Relay(t *testing.T) {
	t.Parallel()
	forms := relayForms(t)
	h := newHouse(t)
	tries := 0
	for _, kind := range kinds {
		s := h.serve(kind, false)
		for _, who := range identities {
			for n, form := range forms {
				for i, wrapping := range wrappings {
					if another := 1 + n%(len(wrappings)-1); i > 0 && (i != another || testing.Short()) && !*allAttacks {
						continue // the right one, and another
					}
					tries++
					rcpt := fmt.Sprintf(wrapping, form.path)
					o := s.play(t, who.peer, s.hello()+" x\r\n"+who.login+"MAIL FROM:<"+who.from+">\r\nRCPT TO:"+rcpt+"\r\nDATA\r\n",
						"From: "+who.from+"\r\n\r\nx\r\n.\r\nQUIT\r\n")
					if fault := form.fault(o, kind == smtpd.Submission, who, i == 0); fault != "" {
						t.Errorf("%v, %s, RCPT TO:%q: %s\n%s", kind, who.name, rcpt, fault, o.said())
					}
				}
			}
		}
	}
	if tries < 2400 && !testing.Short() {
		t.Errorf("only %d tries", tries)
	}
	t.Logf("%d ways to write %d paths, %d tries", tries/len(kinds)/len(identities), len(forms), tries)
}

// fault says what is wrong with what a recipient's path came to. That strangers relay nothing was looked at by play.
func (f relayForm) fault(o outcome, submission bool, who identity, exact bool) string {
	var to []string
	for _, m := range o.got {
		for _, r := range m.rcpts {
			to = append(to, r.To.Canonical().String())
		}
	}
	got := strings.Join(to, " ")
	switch {
	case !submission && got != "" && got != "alice@example.test":
		return "it goes to " + got
	case submission && who.login == "" && got != "":
		return "it is taken without a login"
	case !submission || who.login == "":
		return ""
	case exact && f.to == "-" && got != "", exact && f.to != "-" && f.to != "?" && got != f.to:
		return fmt.Sprintf("it goes to %q, want %q", got, f.to)
	case got == "" || got == f.to:
		return ""
	}
	if a, err := envelope.ParsePath(f.path); err == nil && a.Canonical().String() == got {
		return ""
	}
	return "it goes to " + got
}

// TestC02OneParser: the address that was judged is the address that mail goes to, quotes and all.
func TestC02OneParser(t *testing.T) {
	h := newHouse(t)
	odd := envelope.Address{Local: "a@evil.test x", Domain: "example.test"}
	mx, submission := h.serve(smtpd.MX, false), h.serve(smtpd.Submission, false)
	rcpt := func(path string) string {
		return "RCPT TO:<" + path + ">\r\nDATA\r\nFrom: alice@example.test\r\n\r\nx\r\n.\r\nQUIT\r\n"
	}
	begin := func(s *server) string { return "EHLO x\r\n" + s.login() + "MAIL FROM:<" + s.from() + ">\r\n" }
	for _, s := range []*server{mx, submission} {
		if o := s.play(t, nil, begin(s)+rcpt(odd.String())); len(o.got) != 0 || !strings.Contains(o.said(), "\n550 5.1.1") {
			t.Errorf("%v: %s is nobody\n%s", s.kind, odd, o.said())
		}
	}
	_, err := h.accounts.SetAlias(odd, []envelope.Address{address("alice@example.test")})
	h.must(err)
	for _, s := range []*server{mx, submission} {
		for _, path := range []string{`"a@evil.test x"@example.test`, `"\a\@\evil.test\ x"@EXAMPLE.test`, `"A@EVIL.TEST X"@example.test`} {
			o := s.play(t, nil, begin(s)+rcpt(path))
			if len(o.got) != 1 || o.got[0].rcpts[0].To.String() != "alice@example.test" || !strings.EqualFold(o.got[0].rcpts[0].Original, `rfc822;"a@evil.test x"@example.test`) {
				t.Errorf("%v: <%s>: %+v\n%s", s.kind, path, o.got, o.said())
			}
		}
	}
	for path, want := range map[string]envelope.Address{
		`"a@evil.test x"@elsewhere.test`:      {Local: "a@evil.test x", Domain: "elsewhere.test"},
		`"alice@example.test"@elsewhere.test`: {Local: "alice@example.test", Domain: "elsewhere.test"},
		`"a\"b"@elsewhere.test`:               {Local: `a"b`, Domain: "elsewhere.test"},
		`"a\\b"@elsewhere.test`:               {Local: `a\b`, Domain: "elsewhere.test"},
		`"a>b"@elsewhere.test`:                {Local: "a>b", Domain: "elsewhere.test"},
		`"<>"@elsewhere.test`:                 {Local: "<>", Domain: "elsewhere.test"},
		`"a b"@Elsewhere.TEST`:                {Local: "a b", Domain: "elsewhere.test"},
	} {
		o := submission.play(t, nil, begin(submission)+rcpt(path))
		if len(o.got) != 1 || o.got[0].rcpts[0].To != want {
			t.Errorf("<%s>: %+v, want %+v\n%s", path, o.got, want, o.said())
		}
	}
}

// TestC03NothingIsDecoded: no encoding that mail has elsewhere means anything in an address.
func TestC03NothingIsDecoded(t *testing.T) {
	h := newHouse(t)
	for _, kind := range []smtpd.Kind{smtpd.MX, smtpd.Submission} {
		s := h.serve(kind, false)
		for _, path := range []string{
			"<=?utf-8?q?alice?=@example.test>", "<=?utf-8?q?alice=40example.test?=>", "<=?utf-8?b?YWxpY2U=?=@example.test>", "<alic%65@example.test>", "<alice@example.test>c@d.test",
			"<user＠elsewhere.test>", "<alice＠example.test>", "<alice﹫example.test>", "<ａlice@example.test>", "<alice@example．test>x", "<alice@exam\u200bple.test>", "<alice@\u202eexample.test>", "<ali\u00adce@example.test>",
			"<аlice@example.test>", // its first letter is Cyrillic
		} {
			o := s.play(t, nil, "EHLO x\r\n"+s.login()+"MAIL FROM:<"+s.from()+"> SMTPUTF8\r\nRCPT TO:"+path+"\r\nDATA\r\nFrom: "+s.from()+"\r\n\r\nx\r\n.\r\nQUIT\r\n")
			if len(o.got) != 0 {
				t.Errorf("%v: RCPT TO:%s goes to %v", kind, path, o.got[0].rcpts[0].To)
			}
		}
	}
}

// TestC04SourceRoutes: a route in the sender is dropped, and the last domain is the sender's.
func TestC04SourceRoutes(t *testing.T) {
	s := newHouse(t).serve(smtpd.MX, false)
	for path, want := range map[string]string{
		"<@a.test:sender@far.test>": "sender@far.test", "<@a.test,@b.test:sender@far.test>": "sender@far.test", "<@example.test:sender@far.test>": "sender@far.test",
		"<@a.test,b.test:sender@far.test>": "", "<@:sender@far.test>": "", "<@a.test:>": "", "<@a.test:@b.test:sender@far.test>": "", "<@a.test:sender@b.test@far.test>": "", "<@a test:sender@far.test>": "",
		"<:sender@far.test>": "", "<,sender@far.test>": "", "<@a.test>": "", "<@a\x1b.test:sender@far.test>": "", "<@a.test:sender@far.test:>": "",
	} {
		o := s.play(t, stranger, "EHLO x\r\nMAIL FROM:"+path+"\r\nRCPT TO:<alice@example.test>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n")
		got := ""
		if len(o.got) == 1 {
			got = o.got[0].Envelope.From.String()
		}
		if got != want {
			t.Errorf("MAIL FROM:%s: %q, want %q\n%s", path, got, want, o.said())
		}
	}
}

// TestC05ControlOctets: none gets into a message's fields, into a reply or into the log.
func TestC05ControlOctets(t *testing.T) {
	t.Parallel()
	h := newHouse(t)
	h.queue.wet = true
	s := h.serve(smtpd.MX, false)
	for _, evil := range []string{"\r", "\n", "\x00", "\x1b[2J", "\x07", "\x08", "\x7f", "\t", "\x0b", "\x0c", "\r\r\n", "\nX-Evil: y", "\rX-Evil: y", "\u0085", "\u2028", "\xff", "\x9b31m"} {
		for _, where := range []struct{ helo, from, rcpt string }{
			{"cl" + evil + "ient", "sender@far.test", "alice@example.test"},
			{evil, "sender@far.test", "alice@example.test"},
			{"client", "sen" + evil + "der@far.test", "alice@example.test"},
			{"client", `"sen` + evil + `der"@far.test`, "alice@example.test"},
			{"client", "sender@far" + evil + ".test", "alice@example.test"},
			{"client", "sender@far.test> ENVID=a" + evil + "b", "alice@example.test"},
			{"client", "sender@far.test", "ali" + evil + "ce@example.test"},
			{"client", "sender@far.test", "alice@example.test> ORCPT=rfc822;a" + evil + "b"},
			{"client", "sender@far.test", `"x` + evil + `"@example.test`},
			{"client", "sender@far.test> X" + evil + "Y=Z", "alice@example.test"},
		} {
			for _, extra := range []string{"", " SMTPUTF8"} {
				o := s.play(t, stranger, "EHLO "+where.helo+"\r\nMAIL FROM:<"+strings.TrimSuffix(where.from+">", "b>")+extra+"\r\nRCPT TO:<"+where.rcpt+">\r\nDATA\r\nSubject: x\r\n\r\nx\r\n.\r\nQUIT\r\n")
				for _, m := range o.got {
					if header := h.body(t, m.ID); !clean(header) || strings.Contains(header, "X-Evil") || strings.ContainsFunc(strings.NewReplacer("\r\n", "", "\t", "").Replace(header), control) {
						t.Errorf("%q is stored in\n%q", evil, header)
					}
					if e := fmt.Sprintf("%+v", m.Message); strings.ContainsFunc(e, control) {
						t.Errorf("%q is in the spool: %q", evil, e)
					}
				}
			}
		}
	}
	log := h.log.String()
	if !utf8.ValidString(log) || strings.ContainsFunc(strings.ReplaceAll(log, "\n", ""), control) || strings.Contains(log, "\nX-Evil") {
		t.Error("the log has control octets")
	}
}

// body reads a stored message.
func (h *house) body(t testing.TB, id store.ID) string {
	b, err := h.store.OpenBody(id)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	all, err := io.ReadAll(b.Reader())
	if err != nil {
		t.Fatal(err)
	}
	return string(all)
}

// TestC09Loops: a message that has been round too often is refused, and an alias that leads back to itself too.
func TestC09Loops(t *testing.T) {
	h := newHouse(t)
	for _, kind := range kinds {
		s := h.serve(kind, false)
		for _, test := range []struct {
			name, header string
			taken        bool
		}{
			{"100", strings.Repeat("Received: from a by b; x\r\n", 100), true},
			{"101", strings.Repeat("Received: from a by b; x\r\n", 101), false},
			{"101 in any case, folded", strings.Repeat("RECEIVED :\r\n from a\r\n by b; x\r\n", 101), false},
			{"10,000", strings.Repeat("received:\r\n", 10_000), false},
			{"101 in the body", "\r\n" + strings.Repeat("Received: from a by b; x\r\n", 101), true},
		} {
			message := "From: " + s.from() + "\r\n" + test.header
			data := s.play(t, nil, s.opening()+"DATA\r\n", message+".\r\nQUIT\r\n")
			chunk := s.play(t, nil, s.opening()+fmt.Sprintf("BDAT %d LAST\r\n", len(message)), message+"QUIT\r\n")
			for way, o := range map[string]outcome{"DATA": data, "BDAT": chunk} {
				if (len(o.got) == 1) != test.taken || !test.taken && !strings.Contains(o.said(), "554 5.4.6") {
					t.Errorf("%v, %s Received fields by %s:\n%s", kind, test.name, way, o.said())
				}
			}
		}
	}
	alias := func(from string, to ...string) {
		var targets []envelope.Address
		for _, a := range to {
			targets = append(targets, address(a+"@example.test"))
		}
		h.accounts.SetAlias(address(from+"@example.test"), targets) // what would lead back to itself may be refused here
	}
	alias("chicken", "egg")
	alias("egg", "chicken")
	alias("self", "self", "alice")
	for i := range 30 {
		alias(fmt.Sprintf("deep%d", i), fmt.Sprintf("deep%d", i+1))
	}
	alias("deep30", "alice")
	for _, kind := range kinds {
		s := h.serve(kind, false)
		for name, want := range map[string]string{"chicken": "550 5.", "egg": "550 5.", "deep0": "550 5.4.6"} {
			o := s.play(t, nil, s.hello()+" x\r\n"+s.login()+"MAIL FROM:<"+s.from()+">\r\nRCPT TO:<"+name+"@example.test>\r\nQUIT\r\n")
			if !strings.Contains(o.said(), "\n"+want) {
				t.Errorf("%v: %s leads nowhere\n%s", kind, name, o.said())
			}
		}
		o := s.play(t, nil, strings.ReplaceAll(s.opening(), "TO:<alice@", "TO:<self@")+"DATA\r\nFrom: "+s.from()+"\r\n\r\nx\r\n.\r\nQUIT\r\n")
		if len(o.got) > 1 || len(o.got) == 1 && len(o.got[0].rcpts) != 1 {
			t.Errorf("%v: self is alice, once, or nobody\n%s", kind, o.said())
		}
	}
}

// TestC11Probing: VRFY tells nothing, EXPN is not there, an address of ours that is nobody's is told of as briefly as
// may be, and not often.
func TestC11Probing(t *testing.T) {
	h := newHouse(t)
	s := h.serve(smtpd.MX, false)
	s.pipe(t, stranger).greet(s).talk(`
		> VRFY alice@example.test
		< 252
		> VRFY nobody@example.test
		< 252
		> VRFY alice
		< 252
		> VRFY <alice@example.test>
		< 252
		> VRFY postmaster
		< 252
		> EXPN alice
		< 502|500
		> EXPN staff@example.test
		< 502|500
		> VRFY
		< 501|252`)
	p := s.pipe(t, stranger).greet(s).talk("> MAIL FROM:<sender@far.test>\n< 250")
	for i := range 1000 {
		p.send(fmt.Sprintf("RCPT TO:<name%d@example.test>\r\n", i))
		if got, err := p.reply(); err != nil || got.code == 421 {
			if i > 50 {
				t.Errorf("%d names could be asked for", i)
			}
			return
		} else if got.code != 550 && got.code != 451 {
			t.Fatalf("name%d: %s", i, got)
		}
	}
	t.Error("1,000 names could be asked for")
}
