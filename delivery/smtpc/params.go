package smtpc

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"postroad/internal/envelope"
)

// A need is what a message asks of a server and the server does not offer: the message cannot go there. It is refused in the
// server's place. DELIVERBY and RRVS are not here: whether they are needed depends on what the next hop is to the
// message, which delivery knows.
type need struct {
	lacks  func(t *transaction) bool
	code   int
	status string
	words  func(t *transaction) string
}

var needs = [...]need{
	{lacksSize, 552, "5.3.4", tooLarge},       // RFC 1870, 6.1
	{lacksBinary, 550, "5.6.3", notBinary},    // RFC 3030, 3
	{lacksTLS, 550, "5.7.30", noPromiseOfTLS}, // RFC 8689, 4.2.1
	{lacksUTF8, 550, "5.6.7", notUTF8},        // RFC 6531, 3.2
}

func lacksSize(t *transaction) bool {
	most, err := strconv.ParseInt(t.c.Param("SIZE"), 10, 64)
	return err == nil && most > 0 && t.m.Size > most
}

func tooLarge(t *transaction) string {
	return fmt.Sprintf("the message has %d octets, and %s takes at most %s", t.m.Size, t.c.name, t.c.Param("SIZE"))
}

func lacksBinary(t *transaction) bool {
	return t.m.Binary && !(t.c.Offers("BINARYMIME") && t.c.Offers("CHUNKING"))
}

func notBinary(t *transaction) string { return "a binary message cannot be sent to " + t.c.name }

// lacksTLS asks less for a report: it goes under TLS to who does not promise more, for it would be lost else (RFC 8689, 5).
func lacksTLS(t *transaction) bool {
	e := &t.m.Envelope
	return e.RequireTLS && (t.c.tls == "" || !t.c.Offers("REQUIRETLS") && !e.From.IsZero())
}

func noPromiseOfTLS(t *transaction) string {
	return t.c.name + " does not promise to use TLS only (REQUIRETLS)"
}

func lacksUTF8(t *transaction) bool {
	_, ascii := t.m.Envelope.From.ASCII()
	return (!ascii || t.m.UTF8) && !t.c.Offers("SMTPUTF8")
}

func notUTF8(t *transaction) string {
	return t.c.name + " does not take UTF-8 in addresses and headers (SMTPUTF8)"
}

// refuse settles what this server cannot take, and puts off recipients who are too many for one transaction.
func (t *transaction) refuse() {
	for _, n := range needs {
		if n.lacks(t) {
			t.settle(t.ours(n.code, n.status, n.words(t)))
			return
		}
	}
	for _, i := range t.open() {
		if _, ascii := t.m.Recipients[i].To.ASCII(); !ascii && !t.c.Offers("SMTPUTF8") {
			t.replies[i] = t.ours(550, "5.6.7", t.c.name+" does not take addresses in UTF-8 (SMTPUTF8)")
		}
	}
	for _, i := range t.tooMany() {
		t.putOff[i] = true
		t.replies[i] = t.ours(452, "4.5.3", "more recipients than "+t.c.name+" takes at once (LIMITS)")
	}
	t.asked = t.open()
}

// tooMany are the open recipients beyond what the server takes in one transaction (RFC 9422, 4).
func (t *transaction) tooMany() []int {
	most, domains := t.c.limit("RCPTMAX"), t.c.limit("RCPTDOMAINMAX")
	if most == 0 && domains == 0 {
		return nil
	}
	var beyond []int
	seen := map[string]bool{}
	n := int64(0)
	for _, i := range t.open() {
		domain := strings.ToLower(t.m.Recipients[i].To.Domain)
		if most > 0 && n == most || domains > 0 && !seen[domain] && int64(len(seen)) == domains {
			beyond = append(beyond, i)
			continue
		}
		n++
		seen[domain] = true
	}
	return beyond
}

// limit is what the server's LIMITS say of name; 0 when they say nothing that makes sense.
func (c *Conn) limit(name string) int64 {
	for word := range strings.FieldsSeq(c.Param("LIMITS")) {
		if key, value, _ := strings.Cut(word, "="); strings.EqualFold(key, name) {
			n, err := strconv.ParseInt(value, 10, 64)
			if err == nil && n > 0 {
				return n
			}
		}
	}
	return 0
}

// ours is a reply that we give in the server's place.
func (t *transaction) ours(code int, status, text string) envelope.Reply {
	return envelope.Reply{Code: code, Enhanced: status, Text: text, At: t.c.opts.Now()}
}

// A param is written behind MAIL or RCPT where the server offers the extension; an empty value writes nothing.
type param struct {
	extension string
	keyword   string
	value     string
}

// mail is the MAIL command with the parameters that the server understands.
func (t *transaction) mail() string {
	e := &t.m.Envelope
	params := [...]param{
		{"SIZE", "SIZE=", strconv.FormatInt(t.m.Size, 10)}, // RFC 1870
		{bodyExtension(e.Body), "BODY=", string(e.Body)},   // RFC 6152, RFC 3030
		{"SMTPUTF8", "SMTPUTF8", only(t.utf8())},           // RFC 6531
		{"REQUIRETLS", "REQUIRETLS", only(e.RequireTLS)},   // RFC 8689
		{"DSN", "RET=", string(e.Return)},                  // RFC 3461
		{"DSN", "ENVID=", envelope.EncodeXtext(e.ID)},
		{"AUTH", "AUTH=", t.auth()},                             // RFC 4954, 5
		{"DELIVERBY", "BY=", e.DeliverBy.Value(t.c.opts.Now())}, // RFC 2852: what is left of the time
		{"MT-PRIORITY", "MT-PRIORITY=", priority(e.Priority)},   // RFC 6710
		{"NO-SOLICITING", "SOLICIT=", e.Solicit},                // RFC 3865
	}
	return "MAIL FROM:" + t.address(e.From).Path() + t.c.params(params[:])
}

// bodyExtension is what a server must offer to be told of body. That a message is of 7 bits need not be said.
func bodyExtension(body envelope.Body) string {
	switch body {
	case envelope.Body8Bit:
		return "8BITMIME"
	case envelope.BodyBinary:
		return "BINARYMIME"
	}
	return "-"
}

// auth says that nobody vouches for who sent the message, to a server that would take our login for that.
func (t *transaction) auth() string {
	if t.c.loggedIn {
		return "<>"
	}
	return ""
}

func priority(n int) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(n)
}

// bare is the value of a parameter that has none.
const bare = "\x00"

func only(said bool) string {
	if said {
		return bare
	}
	return ""
}

// rcpt is the RCPT command for a recipient.
func (t *transaction) rcpt(i int) string {
	r := &t.m.Recipients[i]
	params := [...]param{
		{"DSN", "NOTIFY=", r.Notify.String()}, // RFC 3461
		{"DSN", "ORCPT=", envelope.EncodeOriginal(r.Original)},
		{"RRVS", "RRVS=", validSince(r)}, // RFC 7293
	}
	return "RCPT TO:" + t.address(r.To).Path() + t.c.params(params[:])
}

func validSince(r *envelope.Recipient) string {
	if r.ValidSince.IsZero() {
		return ""
	}
	since := r.ValidSince.UTC().Format(time.RFC3339)
	if r.ValidContinue {
		return since + ";C"
	}
	return since
}

// params are those that the server understands, each with a space before it.
func (c *Conn) params(params []param) string {
	var b strings.Builder
	for _, p := range params {
		if p.value != "" && c.Offers(p.extension) {
			b.WriteString(" " + p.keyword)
			if p.value != bare {
				b.WriteString(p.value)
			}
		}
	}
	return b.String()
}

// utf8 reports whether the transaction asks for SMTPUTF8.
func (t *transaction) utf8() bool {
	_, ascii := t.m.Envelope.From.ASCII()
	for _, i := range t.asked {
		_, ok := t.m.Recipients[i].To.ASCII()
		ascii = ascii && ok
	}
	return t.m.UTF8 || !ascii
}

// address is a as this transaction may write it.
func (t *transaction) address(a envelope.Address) envelope.Address {
	ascii, _ := a.ASCII()
	return ascii
}
