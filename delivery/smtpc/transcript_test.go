package smtpc

import (
	"fmt"
	"strings"
	"testing"
)

func TestTranscript(t *testing.T) {
	record := new(Transcript)
	_, err := converse(t, after(offering("SIZE"), "C: MAIL FROM:<s@x.test> SIZE=29", "S: 250 2.1.0 ok", "C: RCPT TO:<a@y.test>", "S: 550-5.1.1 no\x1b[31m\x00", "S: 550 5.1.1 user\xff",
		"C: RCPT TO:<b@y.test>", "S: 250 ok", "C: DATA", "S: 354 go", "C: *", "S: 250 queued", "C: QUIT", "S: 221 bye"), Options{Record: record}, func(c *Conn) {
		c.Send(message("Subject: secret\r\n\r\nnobody's\r\n", "a", "b"))
	})
	if err != nil {
		t.Fatal(err)
	}
	want := `= connected to mx.test (pipe)
< 220 mx.test
> EHLO us.test
< 250-mx.test
< 250-SIZE
< 250 HELP
> MAIL FROM:<s@x.test> SIZE=29
< 250 2.1.0 ok
> RCPT TO:<a@y.test>
< 550-5.1.1 no?[31m?
< 550 5.1.1 user?
> RCPT TO:<b@y.test>
< 250 ok
> DATA
< 354 go
> (29 octets)
< 250 queued
> QUIT
< 221 bye
`
	if got := strings.ReplaceAll(record.String(), "\uFFFD", "?"); got != want {
		t.Errorf("the record is\n%s\nwant\n%s", got, want)
	}
	var none *Transcript
	none.Note("nothing")
	if none.String() != "" {
		t.Error("what is not recorded is")
	}
}

// TestC06TranscriptIsBounded: whatever is said, the beginning and the end are kept.
func TestC06TranscriptIsBounded(t *testing.T) {
	record := new(Transcript)
	for i := range 100_000 {
		record.note("<", fmt.Sprintf("%d %s", i, strings.Repeat("\x1b\r\nx", 1000)))
	}
	got := record.String()
	if len(got) > maxHead+maxTail+10 || !strings.HasPrefix(got, "< 0 ") || !strings.Contains(got, "\n...\n") || !strings.Contains(got, "< 99999 ") {
		t.Errorf("%d octets: %.200q ... %.200q", len(got), got, got[len(got)-200:])
	}
	if strings.ContainsAny(got, "\x1b\r") || strings.Count(got, "\n") > 100 {
		t.Errorf("%.500q", got)
	}
	if cap(record.tail) > 1000 {
		t.Errorf("it holds %d lines", cap(record.tail))
	}
}
