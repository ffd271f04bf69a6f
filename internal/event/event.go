// Package event tells applications what becomes of messages (webhooks). An event is written in the transaction that
// makes it true, for each hook that wants it; soon after, what has gathered for a hook becomes one message of ours in the
// spool, which is posted and retried like all other mail.
//
//	ev  hook's name, id    one event that is not in the spool yet, as JSON
//
// What is promised: an event is posted at least once as long as the spool keeps it, always with the same id, and a batch
// of them always with the same octets. There is none about messages that we wrote ourselves: reports, what lists send
// on, and events. Without hooks nothing is written and nothing runs.
package event

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// Kind says what has become of a message for a recipient.
type Kind string

// The kinds of events.
const (
	Accepted   Kind = "accepted"   // it is in the spool
	Delivered  Kind = "delivered"  // it is in a mailbox, or the next hop has it
	Deferred   Kind = "deferred"   // an attempt failed, another one follows
	Bounced    Kind = "bounced"    // refused for good, or given up
	Suppressed Kind = "suppressed" // not tried: the address is on the suppression list
	Discarded  Kind = "discarded"  // dropped by a route that says so
)

// Hook says which events an application wants.
type Hook struct {
	Name     string
	Kinds    []Kind   // none is all
	Accounts []string // of the messages that these have sent: addresses, or "@domain"; none is of all messages
}

func (h *Hook) wants(kind Kind, account string) bool {
	return (len(h.Kinds) == 0 || slices.Contains(h.Kinds, kind)) && (len(h.Accounts) == 0 || slices.ContainsFunc(h.Accounts, func(a string) bool {
		return strings.EqualFold(a, account) || a != "" && a[0] == '@' && len(account) > len(a) && strings.EqualFold(a, account[len(account)-len(a):])
	}))
}

// Outcome is what has happened to one recipient of a message.
type Outcome struct {
	Kind      Kind
	Time      time.Time
	Recipient *spool.Recipient
	Reply     envelope.Reply
	Attempts  int       // made so far
	Next      time.Time // the next attempt, of Deferred
	Local     bool      // Delivered into a mailbox or a list of ours
	Doubtful  bool      // the next hop may have it all the same
}

// text is an event as applications read it.
type text struct {
	ID         string     `json:"id"`
	Type       Kind       `json:"type"`
	Time       time.Time  `json:"time"`
	Message    string     `json:"message"`
	MessageID  string     `json:"message_id,omitempty"`
	EnvelopeID string     `json:"envelope_id,omitempty"`
	From       string     `json:"from"`
	Account    string     `json:"account,omitempty"`
	Recipient  string     `json:"recipient"`
	Original   string     `json:"original_recipient,omitempty"`
	Attempts   int        `json:"attempts"`
	Code       int        `json:"code,omitempty"`
	Status     string     `json:"status,omitempty"`
	Reply      string     `json:"reply,omitempty"`
	Peer       string     `json:"peer,omitempty"`
	Next       *time.Time `json:"next,omitempty"`
	Local      bool       `json:"local,omitempty"`
	Doubtful   bool       `json:"possibly_delivered,omitempty"`
}

// encode writes an event in JSON, which it always can.
func encode(id store.ID, m *spool.Message, o *Outcome) []byte {
	t := text{
		ID: id.String(), Type: o.Kind, Time: milliseconds(o.Time), Message: m.ID.String(), MessageID: m.MessageID,
		EnvelopeID: m.Envelope.ID, From: m.Envelope.From.String(), Account: m.Origin.Account,
		Recipient: o.Recipient.To.String(), Original: o.Recipient.Original, Attempts: o.Attempts,
		Code: o.Reply.Code, Status: o.Reply.Enhanced, Reply: o.Reply.Text, Peer: o.Reply.From,
		Local: o.Local, Doubtful: o.Doubtful,
	}
	if !o.Next.IsZero() {
		next := milliseconds(o.Next)
		t.Next = &next
	}
	b, _ := json.Marshal(t)
	return b
}

func milliseconds(t time.Time) time.Time { return t.UTC().Truncate(time.Millisecond) }

// Sample is an event of nothing, for a person who tries a hook out, as a post of events has it.
func Sample(now time.Time) []byte {
	m := &spool.Message{MessageID: "<sample@example.org>", Envelope: envelope.Envelope{From: sample("sender@example.org")}}
	to := &spool.Recipient{Recipient: envelope.Recipient{To: sample("recipient@example.net")}}
	reply := envelope.Reply{Code: 250, Enhanced: "2.0.0", Text: "this is a test of the webhook"}
	return batch([][]byte{encode(0, m, &Outcome{Kind: Delivered, Time: now, Recipient: to, Reply: reply, Attempts: 1})})
}

func sample(s string) envelope.Address {
	a, _ := envelope.ParseAddress(s)
	return a
}

// batch is the body of a post.
func batch(events [][]byte) []byte {
	b := []byte(`{"events":[`)
	for i, e := range events {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(append(b, '\n'), e...)
	}
	return append(b, "\n]}\n"...)
}
