package gate

import (
	"cmp"
	"time"
)

// Limits are those of one address. A network may do five times as much, who is known good ten times. A zero field takes the
// default; a negative GreetDelay, Tarpit or Ban is none.
//
//	field              default  within    beyond it
//	PerNetwork             500  at once   not let in
//	Connections            600  a minute  not let in
//	Messages            20,000  an hour   refused for now
//	Recipients          50,000  an hour   refused for now
//	RefusedOctets         1 GB  an hour   no message for now
//	Errors               3,000  an hour   not let in
//	AccountMessages      1,000  an hour   refused for now
//	AccountRecipients   10,000  an hour   refused for now
//	BanGuesses              20  6 hours   banned
//	BanUnknown             100  an hour   banned
//	BanAbuse                10  an hour   banned
//	GreetDelay             2 s            -
//	Tarpit                   5            each further error is answered later, by 1 to 5 seconds
//
// The large senders of the world write to a large site from dozens of addresses in one /24, each with hundreds of
// messages an hour and tens in a minute; a network may open 3,000 connections a minute and send 100,000 messages an
// hour. A relay that brings all the mail there is belongs into Options.Trusted.
type Limits struct {
	PerNetwork    int   // connections at once from one network, on all listeners together
	Connections   int   // that begin
	Messages      int   // transactions that begin, of who is not logged in
	Recipients    int   // that are named, by who is not logged in
	RefusedOctets int64 // of messages that were not accepted, or cut off
	Errors        int   // replies that refuse

	AccountMessages   int // transactions that begin, of who is logged in
	AccountRecipients int // that are named, by who is logged in

	BanGuesses int // failed logins
	BanUnknown int // recipients that do not exist, less those of accepted messages
	BanAbuse   int // early talkers, other protocols, smuggled messages

	GreetDelay time.Duration // for which a stranger's silence before the greeting is watched
	Tarpit     int           // errors of a connection that are answered at once
}

// WithDefaults returns l with its zero fields set.
func (l Limits) WithDefaults() Limits {
	return Limits{
		PerNetwork:        cmp.Or(l.PerNetwork, 500),
		Connections:       cmp.Or(l.Connections, 600),
		Messages:          cmp.Or(l.Messages, 20_000),
		Recipients:        cmp.Or(l.Recipients, 50_000),
		RefusedOctets:     cmp.Or(l.RefusedOctets, 1_000_000_000),
		Errors:            cmp.Or(l.Errors, 3000),
		AccountMessages:   cmp.Or(l.AccountMessages, 1000),
		AccountRecipients: cmp.Or(l.AccountRecipients, 10_000),
		BanGuesses:        cmp.Or(l.BanGuesses, 20),
		BanUnknown:        cmp.Or(l.BanUnknown, 100),
		BanAbuse:          cmp.Or(l.BanAbuse, 10),
		GreetDelay:        cmp.Or(l.GreetDelay, 2*time.Second),
		Tarpit:            cmp.Or(l.Tarpit, 5),
	}
}

// measure is a thing that is counted.
type measure int

const (
	connections measure = iota
	messages
	recipients
	refused
	failures
	guesses
	unknown
	abuse
	accountMessages
	accountRecipients
	measures
)

func (l Limits) rules() [measures]rule {
	return [measures]rule{
		connections: {float64(l.Connections), time.Minute},
		messages:    {float64(l.Messages), time.Hour},
		recipients:  {float64(l.Recipients), time.Hour},
		refused:     {float64(l.RefusedOctets), time.Hour},
		failures:    {float64(l.Errors), time.Hour},
		guesses:     {float64(l.BanGuesses), 6 * time.Hour},
		unknown:     {float64(l.BanUnknown), time.Hour},
		abuse:       {float64(l.BanAbuse), time.Hour},

		accountMessages:   {float64(l.AccountMessages), time.Hour},
		accountRecipients: {float64(l.AccountRecipients), time.Hour},
	}
}
