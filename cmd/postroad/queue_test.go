package main

import (
	"strings"
	"testing"
	"time"

	"postroad/internal/control"
)

func TestQueueShowTellsAllThatWasAskedFor(t *testing.T) {
	at := time.Now().Add(26 * time.Hour)
	e := control.QueueEntry{
		ID: "01k8q2c4rw7xf", Arrived: time.Now(), Size: 1000, From: "a@x.test",
		Asked: control.QueueAsked{
			Release: at, Deadline: at.Add(time.Hour), DeadlineMode: "RT", Priority: 4, Body: "8BITMIME", UTF8: true, RequireTLS: true,
			Return: "HDRS", EnvelopeID: "QQ\x1b[2J", Solicit: "net.example:ADV",
		},
		Recipients: []control.QueueRecipient{
			{To: "b@y.test", State: "deferred", Next: at, Notify: "SUCCESS,DELAY", Original: "rfc822;c@y.test", ValidSince: at, ValidContinue: true},
			{To: "list@x.test", State: "deferred", Next: at, Notify: "NEVER", List: true, Mailbox: "Work"},
			{To: "d@y.test", State: "deferred", Next: at, Attempts: 1, Reply: "450 later"},
		},
	}
	var b strings.Builder
	showQueueEntry(&b, e)
	rows := map[string]bool{}
	for row := range strings.Lines(b.String()) {
		rows[strings.Join(strings.Fields(row), " ")] = true
	}
	for _, want := range []string{
		"release not before " + when(at),
		"deadline " + when(at.Add(time.Hour)) + ", else it goes back to the sender; the sender is told of relays too",
		"priority +4, of -9 to +9",
		"body 8BITMIME",
		"addresses may be in UTF-8 (SMTPUTF8)",
		"security goes on by verified TLS only (REQUIRETLS)",
		"reports have the header only (RET=HDRS)",
		`envelope id QQ\x1b[2J`,
		"solicitation net.example:ADV",
		"b@y.test - deferred 0 " + when(at) + " waits for the release time that the sender asked for",
		"d@y.test - deferred 1 " + when(at) + " 450 later",
		"TO WITH",
		"b@y.test reports on success, delay",
		"sent to rfc822;c@y.test at first",
		"only if its owner is the same since " + when(at) + ", or that cannot be checked",
		"list@x.test a list: its members get it",
		"into the mailbox Work",
		"reports never (NOTIFY=NEVER)",
	} {
		if !rows[want] {
			t.Errorf("no row %q in\n%s", want, b.String())
		}
	}
}

func TestQueueListTellsWhatWasAskedFor(t *testing.T) {
	at := time.Now().Add(26 * time.Hour)
	var b strings.Builder
	rows := newTable(&b, "ID", "ARRIVED", "SIZE", "FROM", "ASKED", "TO", "ROUTE", "STATE", "TRIED", "NEXT", "LAST REPLY")
	queueRows(rows, control.QueueEntry{
		ID: "01k8q2c4rw7xf", Arrived: time.Now(),
		Asked:      control.QueueAsked{Release: at, Deadline: at, DeadlineMode: "RT", Priority: -4, TLSOptional: true},
		Recipients: []control.QueueRecipient{{To: "a@y.test", State: "active"}, {To: "b@y.test", State: "active"}, {To: "c@y.test", State: "active", ValidSince: at}},
	})
	flush(rows)
	said := "priority -4, not before " + when(at) + ", by " + when(at) + " or back, TLS or not"
	if got := b.String(); strings.Count(got, said) != 2 || !strings.Contains(got, said+", same owner since "+when(at)) {
		t.Errorf("it says\n%s", got)
	}
}

func TestQueueShowTellsNothingThatWasNotAskedFor(t *testing.T) {
	var b strings.Builder
	showQueueEntry(&b, control.QueueEntry{ID: "01k8q2c4rw7xf", Recipients: []control.QueueRecipient{{To: "b@y.test", State: "active"}}})
	var words []string
	for row := range strings.Lines(b.String()) {
		word, _, _ := strings.Cut(row, " ")
		words = append(words, strings.TrimSpace(word))
	}
	if got := strings.Join(words, " "); got != "id arrived size  TO b@y.test" {
		t.Errorf("got %q in\n%s", got, b.String())
	}
}

func TestDeadline(t *testing.T) {
	at := time.Now()
	for mode, want := range map[string]string{
		"R":  ", else it goes back to the sender",
		"N":  ", else the sender is told of the delay",
		"NT": ", else the sender is told of the delay; the sender is told of relays too",
	} {
		if got := deadline(control.QueueAsked{Deadline: at, DeadlineMode: mode}); got != when(at)+want {
			t.Errorf("%s: %q", mode, got)
		}
	}
}
