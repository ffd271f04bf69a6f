package delivery

import (
	"context"
	"io"

	"postroad/internal/envelope"
	"postroad/internal/store"
	"postroad/spool"
)

// Signer says what vouches for a message on its way out. Any number of goroutines.
type Signer interface {
	// Fields returns what goes before the message: signatures, and of what we forward the seal of what we saw and
	// for whom it was. Each field ends in CRLF. open gives the octets as they will leave, without these fields, from the
	// start each time that it is called. An error is temporary: the message does not go without.
	Fields(ctx context.Context, m Outgoing, open func() (io.ReadCloser, error)) ([]byte, error)
	// From is the reverse-path as the next hop sees it: of what we forward, an address of ours, from which reports
	// find their way back to the sender (SRS). An error is temporary.
	From(m Outgoing) (envelope.Address, error)
}

// Outgoing is what a Signer knows of a message, for recipients that have Via in common.
type Outgoing struct {
	ID       store.ID
	Envelope envelope.Envelope
	Origin   spool.Origin
	Via      envelope.Address // our address that forwards the message; zero when none does
}
