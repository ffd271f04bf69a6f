package spool

import "postroad/internal/envelope"

// Class decides between recipients that are due at the same time: what is urgent (MT-PRIORITY, RFC 6710) goes before
// what is not, and what is tried for the first time before what failed already. Turns keeps the last from waiting for ever.
type Class uint8

// The classes, in the order of their turns.
const (
	Urgent Class = iota
	UrgentAgain
	Normal
	NormalAgain
	Bulk
	BulkAgain

	Classes = 6
)

// Again reports whether the recipient had its turn before.
func (c Class) Again() bool { return c%2 == 1 }

// Class returns the class of a recipient: a positive priority is urgent, a negative one is bulk.
func (m *Message) Class(r *Recipient) Class {
	c := Normal
	switch p := m.Envelope.Priority; {
	case p > 0:
		c = Urgent
	case p < 0:
		c = Bulk
	}
	if r.Attempts > 0 || r.Last != (envelope.Reply{}) {
		c++
	}
	return c
}

// Turns chooses between classes. The first that has something goes, but none is passed over more often than patience.
type Turns struct{ passed [Classes]int }

// patience is how often a class that has something is passed over: so much of all turns belongs to the lower classes.
const patience = 8

// Next returns the class whose turn it is; false when none has anything.
func (t *Turns) Next(has func(Class) bool) (Class, bool) {
	chosen, found := Class(0), false
	for c := range Class(Classes) {
		switch {
		case !has(c):
		case !found:
			chosen, found = c, true
		case t.passed[c] >= patience && t.passed[c] > t.passed[chosen]:
			t.passed[chosen]++
			chosen = c
		default:
			t.passed[c]++
		}
	}
	t.passed[chosen] = 0
	return chosen, found
}
