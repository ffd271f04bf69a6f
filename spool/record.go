package spool

import (
	"postroad/internal/envelope"
	"postroad/internal/store"
)

// recordVersion begins every record; a record of a later version is not read.
const recordVersion = 4

func messageKey(id store.ID) store.Key { return store.NewKey("qm").Uint(uint64(id)) }

func recipientKey(id store.ID, n int) store.Key {
	return store.NewKey("qr").Uint(uint64(id)).Uint(uint64(n))
}

func recipientsOf(id store.ID) store.Key { return store.NewKey("qr").Uint(uint64(id)) }

func (m *Message) encode() []byte {
	e := make(store.Encoder, 0, 128)
	e.Uint(recordVersion)
	e.Int(m.Size)
	e.Int(m.Skip)
	e.Time(m.Arrived)
	e.Uint(uint64(m.recipients))
	putAddress(&e, m.Envelope.From)
	e.Text(string(m.Envelope.Body))
	e.Bool(m.Envelope.UTF8)
	e.Text(string(m.Envelope.Return))
	e.Text(m.Envelope.ID)
	e.Bool(m.Envelope.RequireTLS)
	e.Bool(m.Envelope.TLSOptional)
	e.Time(m.Envelope.DeliverBy.Deadline)
	e.Bool(m.Envelope.DeliverBy.Return)
	e.Bool(m.Envelope.DeliverBy.Trace)
	e.Int(int64(m.Envelope.Priority))
	e.Time(m.Envelope.Release)
	e.Text(m.Envelope.Solicit)
	e.Text(m.Origin.Protocol)
	e.Text(m.Origin.Peer)
	e.Text(m.Origin.Helo)
	e.Text(m.Origin.TLS)
	e.Text(m.Origin.Account)
	e.Text(m.MessageID)
	return e
}

func decodeMessage(id store.ID, b []byte) (*Message, error) {
	d := store.NewDecoder(b)
	if d.Uint() != recordVersion {
		return nil, store.ErrRecord
	}
	m := &Message{ID: id, Size: d.Int(), Skip: d.Int(), Arrived: d.Time(), recipients: int(d.Uint())}
	m.Envelope = envelope.Envelope{
		From: takeAddress(d), Body: envelope.Body(d.Text()), UTF8: d.Bool(),
		Return: envelope.Return(d.Text()), ID: d.Text(), RequireTLS: d.Bool(), TLSOptional: d.Bool(),
		DeliverBy: envelope.DeliverBy{Deadline: d.Time(), Return: d.Bool(), Trace: d.Bool()},
		Priority:  int(d.Int()), Release: d.Time(), Solicit: d.Text(),
	}
	m.Origin = Origin{Protocol: d.Text(), Peer: d.Text(), Helo: d.Text(), TLS: d.Text(), Account: d.Text()}
	m.MessageID = d.Text()
	return m, d.Err()
}

func (r *Recipient) encode() []byte {
	e := make(store.Encoder, 0, 64)
	e.Uint(recordVersion)
	putAddress(&e, r.To)
	e.Uint(uint64(r.Notify))
	e.Text(r.Original)
	e.Time(r.ValidSince)
	e.Bool(r.ValidContinue)
	e.Uint(r.Account)
	e.Text(r.Mailbox)
	e.Bool(r.List)
	e.Bool(r.Expanded)
	e.Uint(uint64(r.State))
	e.Time(r.Next)
	e.Uint(uint64(r.Attempts))
	e.Bool(r.Delayed)
	putAddress(&e, r.Via)
	e.Text(r.Lane)
	e.Text(r.Transport)
	e.Text(r.Reason)
	e.Int(int64(r.Last.Code))
	e.Text(r.Last.Enhanced)
	e.Text(r.Last.Text)
	e.Text(r.Last.From)
	e.Time(r.Last.At)
	return e
}

func decodeRecipient(n int, b []byte) (Recipient, error) {
	d := store.NewDecoder(b)
	if d.Uint() != recordVersion {
		return Recipient{}, store.ErrRecord
	}
	r := Recipient{N: n}
	r.To, r.Notify, r.Original = takeAddress(d), envelope.Notify(d.Uint()), d.Text()
	r.ValidSince, r.ValidContinue = d.Time(), d.Bool()
	r.Account, r.Mailbox, r.List, r.Expanded = d.Uint(), d.Text(), d.Bool(), d.Bool()
	r.State, r.Next = State(d.Uint()), d.Time()
	r.Attempts, r.Delayed = int(d.Uint()), d.Bool()
	r.Via, r.Lane, r.Transport, r.Reason = takeAddress(d), d.Text(), d.Text(), d.Text()
	r.Last = envelope.Reply{Code: int(d.Int()), Enhanced: d.Text(), Text: d.Text(), From: d.Text(), At: d.Time()}
	if r.State > Hold {
		return r, store.ErrRecord
	}
	return r, d.Err()
}

func putAddress(e *store.Encoder, a envelope.Address) {
	e.Text(a.Local)
	e.Text(a.Domain)
}

func takeAddress(d *store.Decoder) envelope.Address {
	return envelope.Address{Local: d.Text(), Domain: d.Text()}
}
