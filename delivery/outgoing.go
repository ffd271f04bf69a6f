package delivery

import (
	"postroad/delivery/smtpc"
	"postroad/internal/envelope"
)

// exchange sends the message.
func (a *attempt) exchange(conn *smtpc.Conn) smtpc.Result {
	body, err := a.r.openBody(a.msg)
	if err != nil {
		return smtpc.Result{Replies: make([]envelope.Reply, len(a.left)), BodyErr: err}
	}
	defer body.Close()
	m := smtpc.Message{Envelope: a.msg.Envelope, Size: a.msg.Size - a.msg.Skip, Body: body, Before: a.markSending()}
	if m.Envelope.UTF8 {
		if m.UTF8, err = a.r.headerHasUTF8(a.msg); err != nil {
			return smtpc.Result{Replies: make([]envelope.Reply, len(a.left)), BodyErr: err}
		}
	}
	for _, i := range a.left {
		m.Recipients = append(m.Recipients, a.done[i].due.Recipient.Recipient)
	}
	return conn.Send(m)
}
