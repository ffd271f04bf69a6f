package smtpc

import (
	"flag"
	"math/rand/v2"
	"strings"
	"testing"
)

var allBodies = flag.Bool("bodies.all", false, "send a million random bodies in TestA03RandomBodies")

// TestA03RandomBodies: whatever a body is made of, and however it comes, it leaves with one end, without a bare CR or LF,
// its dots doubled, and arrives as it was with its line ends put right.
func TestA03RandomBodies(t *testing.T) {
	const octets = "\r\n\r\n\r\n..\x00ab"
	bodies := 50_000
	if *allBodies {
		bodies = 1_000_000
	}
	rnd := rand.New(rand.NewPCG(3, 14))
	ends := strings.NewReplacer("\r\n", "\r\n", "\r", "\r\n", "\n", "\r\n")
	for range bodies {
		in := make([]byte, rnd.IntN(60))
		for i := range in {
			in[i] = octets[rnd.IntN(len(octets))]
		}
		cut := rnd.IntN(len(in) + 1)
		sent, ended := strings.CutSuffix(dotted(t, string(in[:cut]), string(in[cut:])), ".\r\n")
		if !ended || strings.ContainsAny(strings.ReplaceAll(sent, "\r\n", ""), "\r\n") || strings.Contains("\r\n"+sent, "\r\n.\r\n") {
			t.Fatalf("%q is sent as %q", in, sent)
		}
		want := ends.Replace(string(in))
		if want != "" && !strings.HasSuffix(want, "\n") {
			want += "\r\n"
		}
		if got := strings.TrimPrefix(strings.ReplaceAll("\r\n"+sent, "\r\n.", "\r\n"), "\r\n"); got != want {
			t.Fatalf("%q arrives as %q, want %q", in, got, want)
		}
	}
}

// TestB04PlaintextBeforeTLS: what comes behind the reply to STARTTLS, and before the handshake, is the end of the
// connection, wherever the network cuts it.
func TestB04PlaintextBeforeTLS(t *testing.T) {
	for _, injected := range []string{"\r\n", "250 evil\r\n", "250-evil\r\n250 AUTH PLAIN\r\n", "\x00", "\x16"} {
		_, err := converse(t, dialogue{
			"S: 220 mx", "C: EHLO us.test", "S: 250-mx", "S: 250 STARTTLS", "C: STARTTLS", "S: 220 go\r\n" + strings.TrimSuffix(injected, "\r\n"),
		}, Options{}, func(*Conn) { t.Errorf("%q: it went on", injected) })
		if err == nil {
			t.Errorf("%q is taken", injected)
		}
	}
}
