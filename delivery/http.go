package delivery

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"postroad/internal/dns"
	"postroad/internal/envelope"
	"postroad/internal/hook"
	"postroad/internal/tlsrpt"
)

// What goes out by HTTP is one of three things, which have retries, lanes and the trace in common with all other mail.
type posted uint8

const (
	postedMail   posted = iota // a message, for an application of the administrator's
	postedEvents               // what has become of messages, for such an application
	postedReport               // a TLS report, for whom the DNS of a stranger names
)

// poster is what goes out by HTTP.
type poster struct {
	apps      *hook.Client // goes where the administrator says
	strangers *hook.Client // goes to public addresses only, for the administrator's network is not for others to reach
}

func newPoster(c *Config) *poster {
	config := hook.Config{Dial: c.dialAny, TLS: c.TLS, Agent: "postroad (" + c.Hostname + ")", Now: c.Now}
	p := &poster{apps: hook.New(config)}
	config.Dial, config.Direct = c.dialPublic, true
	p.strangers = hook.New(config)
	return p
}

func (p *poster) close() {
	p.apps.Close()
	p.strangers.Close()
}

// dialAny connects from any local address.
func (c *Config) dialAny(ctx context.Context, network, addr string) (net.Conn, error) {
	return c.Dial(ctx, netip.Addr{}, network, addr)
}

// dialPublic connects to a host by its public addresses only. The addresses that are checked are those that are dialled.
func (c *Config) dialPublic(ctx context.Context, network, addr string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	ips, err := c.publicAddresses(ctx, host)
	if err != nil {
		return nil, err
	}
	for _, ip := range ips[:min(len(ips), maxAddresses)] {
		var conn net.Conn
		if conn, err = c.dialAny(ctx, network, net.JoinHostPort(ip.String(), port)); err == nil {
			return conn, nil
		}
	}
	return nil, err
}

func (c *Config) publicAddresses(ctx context.Context, host string) ([]netip.Addr, error) {
	var all []netip.Addr
	if ip, err := netip.ParseAddr(host); err == nil {
		all = []netip.Addr{ip}
	} else {
		answer, err := c.Resolver.LookupHost(ctx, host)
		if err != nil {
			return nil, err
		}
		all = answer.Records
	}
	public := slices.DeleteFunc(slices.Clone(all), func(ip netip.Addr) bool { return !c.AllowPrivate && !dns.Public(ip) })
	if len(public) == 0 {
		return nil, fmt.Errorf("%s %w", host, errPrivate)
	}
	return public, nil
}

// maxEnvelope bounds the header that names the recipients: many servers take 8 KiB. What has more goes in several posts.
const maxEnvelope = 7 << 10

// post hands the message to the lane's route.
func (a *attempt) post(ctx context.Context) {
	if err := a.mayPost(); err.Code != 0 {
		a.reached = true
		a.settle(err)
		return
	}
	for len(a.left) > 0 && ctx.Err() == nil {
		group, named := a.group()
		a.postTo(ctx, group, named)
		if !a.reached || a.damaged != nil || a.stopped != nil {
			a.settle(a.last) // the others would fare no better
			return
		}
		a.left = a.left[len(group):]
	}
}

// mayPost refuses what must not travel without TLS (RFC 8689, 4.2).
func (a *attempt) mayPost() (refused envelope.Reply) {
	if a.msg.Envelope.RequireTLS && !strings.HasPrefix(a.lane.route.URL, "https:") {
		refused = a.r.ours("5.7.30", "the message needs TLS on its way, and its route has none")
		refused.Code = 550
	}
	return refused
}

// group takes as many recipients as one post can name, and gives their names.
func (a *attempt) group() (group []int, named string) {
	if a.lane.route.posted != postedMail {
		return a.left, ""
	}
	for n := len(a.left); ; n = (n + 1) / 2 {
		group = a.left[:n]
		if named = a.postEnvelope(group); len(named) <= maxEnvelope || n == 1 {
			return group, named
		}
	}
}

// postEnvelope is the envelope as an application reads it, in ASCII and on one line.
func (a *attempt) postEnvelope(group []int) string {
	m := a.msg
	e := struct {
		Message    string   `json:"message"`
		From       string   `json:"from"`
		To         []string `json:"to"`
		EnvelopeID string   `json:"envelope_id,omitempty"`
		Account    string   `json:"account,omitempty"`
		Arrived    string   `json:"arrived"`
	}{
		Message: m.ID.String(), From: m.Envelope.From.String(), EnvelopeID: m.Envelope.ID, Account: m.Origin.Account,
		Arrived: m.Arrived.UTC().Format(timeFormat),
	}
	for _, i := range group {
		e.To = append(e.To, a.done[i].due.Recipient.To.String())
	}
	text, _ := json.Marshal(e) // of strings it always can
	return ascii(text)
}

// timeFormat is RFC 3339 with milliseconds.
const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// ascii writes JSON without octets that a header cannot have.
func ascii(text []byte) string {
	var b strings.Builder
	for _, r := range string(text) {
		switch {
		case r < 0x7f:
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String()
}

// postTo posts the message for some recipients and notes the answer.
func (a *attempt) postTo(ctx context.Context, group []int, named string) {
	req, err := a.request(group, named)
	if err != nil {
		a.reached = true
		a.conclude(group, a.r.ours("4.3.5", "the route "+a.lane.route.Name+": "+err.Error()), hook.Answer{})
		return
	}
	a.said.Note(fmt.Sprintf("POST to %s: %d octets, Webhook-Id %s", a.postHost(), req.Size, req.ID))
	answer, err := a.client().Post(ctx, req)
	switch local, ok := errors.AsType[*hook.LocalError](err); {
	case ok && a.stopped == nil:
		a.damaged = local.Err
		a.conclude(group, a.r.ours("4.3.0", "the message cannot be read: "+local.Error()), hook.Answer{})
	case ok:
		a.conclude(group, envelope.Reply{}, hook.Answer{})
	case err != nil:
		a.reached = a.reached || answer.Peer != ""
		a.said.Note("no answer: " + err.Error())
		a.conclude(group, a.r.ours("4.4.1", "no answer from "+a.postHost()+": "+err.Error()), answer)
	default:
		a.said.Note(fmt.Sprintf("HTTP %d %s", answer.Code, answer.Text))
		a.reached = !busy(answer.Code)
		a.conclude(group, a.postReply(&answer), answer)
	}
}

func (a *attempt) client() *hook.Client {
	if a.lane.route.posted == postedReport {
		return a.r.poster.strangers
	}
	return a.r.poster.apps
}

func (a *attempt) request(group []int, named string) (*hook.Request, error) {
	route, m := a.lane.route, a.msg
	key, err := hook.ParseKey(route.Secret)
	req := &hook.Request{
		URL: route.URL, ID: m.ID.String(), Size: m.Size - m.Skip, Key: key, Header: map[string]string{},
		Open: func() (io.ReadCloser, error) { return a.r.openBody(m) },
	}
	switch route.posted {
	case postedEvents:
		req.ContentType = "application/json"
	case postedReport:
		req.ContentType = "application/tlsrpt+gzip" // RFC 8460, 5.4
	default:
		req.ID, req.ContentType = a.postID(group), "message/rfc822"
		req.Envelope, req.Header["Postroad-Envelope"] = named, named
		wait := a.markSending()
		req.Before = func() error {
			a.stopped = wait()
			return a.stopped
		}
	}
	return req, err
}

// postID is the same whenever the message is posted again for the same recipients.
func (a *attempt) postID(group []int) string {
	numbers := ""
	for _, i := range group {
		numbers += fmt.Sprint("-", a.done[i].due.Recipient.N)
	}
	if len(numbers) > 20 {
		numbers = fmt.Sprintf("-%x", sha256.Sum256([]byte(numbers)))[:20]
	}
	return a.msg.ID.String() + numbers
}

// conclude gives recipients a reply.
func (a *attempt) conclude(group []int, reply envelope.Reply, answer hook.Answer) {
	a.last = reply
	for _, i := range group {
		o := &a.done[i]
		o.reply, o.tls, o.final = reply, answer.TLS, true
		o.doubtful = answer.Code == 0 && answer.Whole
		o.notBefore = reply.At.Add(answer.RetryAfter)
	}
}

// An httpRefusal is what an answer means that speaks of the message, and not of the way to the application.
type httpRefusal struct {
	code   int
	status string
}

var refusals = map[int]httpRefusal{
	http.StatusNotAcceptable:         {554, "5.6.0"},
	http.StatusGone:                  {550, "5.1.6"},
	http.StatusRequestEntityTooLarge: {552, "5.3.4"},
	http.StatusUnprocessableEntity:   {554, "5.6.0"},
}

// postReply is an answer in the words of SMTP, in which all else is thought. What may be a mistake of the
// administrator's is never the sender's fault: only the answers that speak of the message itself refuse it, and of
// those that concern no sender, only "gone for good".
func (a *attempt) postReply(answer *hook.Answer) envelope.Reply {
	words := fmt.Sprintf("HTTP %d %s", answer.Code, cmp.Or(answer.Text, http.StatusText(answer.Code)))
	reply := a.r.ours("4.3.0", words)
	reply.Code, reply.From = 451, a.postHost()+" ("+answer.Peer+")"
	said, refused := refusals[answer.Code]
	switch taken := answer.Code/100 == 2; {
	case taken && answer.Whole:
		reply.Code, reply.Enhanced = 250, "2.0.0"
	case taken:
		reply.Text = a.r.ours("", "it answered before it had the whole message: "+words).Text
	case refused && (a.lane.route.posted == postedMail || answer.Code == http.StatusGone):
		reply.Code, reply.Enhanced = said.code, said.status
	case answer.Code/100 == 3:
		reply.Text = a.r.ours("", "redirects are not followed, so the url is to be where they lead: "+words).Text
	}
	return reply
}

// busy reports whether an answer asks to be left alone, whatever is to be posted.
func busy(code int) bool {
	return code == http.StatusTooManyRequests || code == http.StatusServiceUnavailable
}

// postHost is who is posted to; the rest of the address may have a secret in it.
func (a *attempt) postHost() string {
	u, err := url.Parse(a.lane.route.URL)
	if err != nil {
		return a.lane.route.Name
	}
	return u.Host
}

// reportSchedule is how TLS reports are retried that go by HTTPS (RFC 8460, 5.5).
var reportSchedule = Schedule{Expire: 24 * time.Hour}

// reportRoute is the route that a TLS report's Transport names.
func reportRoute(name string) (*Route, bool) {
	url, ok := tlsrpt.URLOf(name)
	if !ok {
		return nil, false
	}
	return &Route{Name: name, Kind: HTTP, URL: url, posted: postedReport, Schedule: &reportSchedule}, true
}
