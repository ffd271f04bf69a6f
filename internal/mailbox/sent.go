package mailbox

import (
	"errors"

	"postroad/internal/mime"
	"postroad/internal/store"
)

// A SentCopy is the copy that an owner keeps of a message on its way out. It is written while the message comes in, so
// that nobody has to read it again, and put into a mailbox when the message is accepted. One goroutine's.
type SentCopy struct {
	s         *Service
	owner     Owner
	scanner   *mime.Scanner
	size      int64
	structure []byte // once the message has come whole
}

// SentCopy begins a copy.
func (s *Service) SentCopy(o Owner) *SentCopy {
	return &SentCopy{s: s, owner: o, scanner: mime.NewScanner()}
}

// Write takes the next octets of the message. It never fails.
func (c *SentCopy) Write(p []byte) (int, error) {
	c.size += int64(len(p))
	return c.scanner.Write(p)
}

// Finish says that the message is complete. Nothing may be written after it.
func (c *SentCopy) Finish() (err error) {
	c.structure, err = c.scanner.Finish().AppendBinary(nil)
	return err
}

// Put adds the message, read already, to the owner's mailbox for sent mail, and takes a reference to its body: the one whose
// special use is \Sent, or else the one named Sent, which is made when missing. refused is ErrOverQuota or ErrLimit when
// there is no room for it: then nothing was changed. Like any transaction's function it may run again.
func (c *SentCopy) Put(tx store.Tx, body store.ID) (placed Placed, refused, err error) {
	err = c.s.fits(tx, c.owner, Quota{Octets: c.size, Messages: 1})
	var b *box
	if err == nil {
		b, err = c.s.sentBox(tx, c.owner)
	}
	switch {
	case errors.Is(err, ErrOverQuota), errors.Is(err, ErrLimit):
		return Placed{}, err, nil
	case err != nil:
		return Placed{}, nil, err
	}
	placed, err = c.s.arrive(tx, b, Arrival{Body: body, Size: c.size, Structure: c.structure, Flags: []string{`\Seen`}})
	return placed, nil, err
}

const sentName = "Sent"

// sentBox finds or makes the mailbox for sent mail.
func (s *Service) sentBox(tx store.Tx, o Owner) (*box, error) {
	b, err := loadNamed(tx, o, sentName)
	if err == nil && b.Role.Has(Sent) {
		return b, nil // nearly always, so it comes before all others
	}
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	list, failed := ownList(tx, o)
	if failed != nil {
		return nil, failed
	}
	for _, m := range list {
		if m.Role.Has(Sent) {
			return loadBox(tx, m.ID)
		}
	}
	if err == nil {
		return b, nil
	}
	if b, err = s.create(tx, o, sentName, Sent); err == nil {
		tx.Put(subscriptionKey(o, sentName), []byte{recordVersion})
	}
	return b, err
}
