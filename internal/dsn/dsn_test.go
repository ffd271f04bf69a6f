package dsn

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"postroad/internal/envelope"
)

var update = flag.Bool("update", false, "rewrite the golden reports")

var (
	arrived = time.Date(2026, 3, 1, 10, 0, 0, 0, time.UTC)
	now     = time.Date(2026, 3, 6, 10, 0, 0, 0, time.UTC)
)

const original = "Received: from a\r\n\tby b\r\nSubject: hello\r\nFrom: alice@a.example\r\n\r\n.body\r\nFrom here\r\n"

func failed() Report {
	return Report{
		Host: "mx.a.example", To: envelope.Address{Local: "alice", Domain: "a.example"},
		ID: "001k0q5mxft28", Subject: "Minutes of the meeting", Answers: "<m1@a.example>",
		MessageID: "<1@mx.a.example>", Date: now, EnvelopeID: "QQ314159", Arrived: arrived, Boundary: "=_edge",
		Recipients: []Recipient{{
			Original: "rfc822;bob@old.example", Final: envelope.Address{Local: "bob", Domain: "b.example"},
			Action: Failed, Status: "5.1.1", LastAttempt: now,
			Reply: envelope.Reply{Code: 550, Enhanced: "5.1.1", Text: "no such user", From: "mx.b.example (192.0.2.1)"},
		}, {
			Final: envelope.Address{Local: "carol d", Domain: "b.example"}, Action: Failed, Status: "4.4.7", LastAttempt: now, Attempts: 37,
			Reply: envelope.Reply{Text: "connection refused"},
		}},
		Original: strings.NewReader(original), HeaderOnly: true,
	}
}

func delayed() Report {
	r := failed()
	r.HeaderOnly = false
	r.Recipients = r.Recipients[:1]
	r.Recipients[0].Action, r.Recipients[0].Status = Delayed, "4.4.1"
	r.Recipients[0].Reply = envelope.Reply{Code: 451, Text: "later", From: "mx.b.example (192.0.2.1)"}
	r.Recipients[0].RetryUntil = now.Add(24 * time.Hour)
	r.Recipients = append(r.Recipients, r.Recipients[0])
	r.Recipients[1].Doubtful, r.Recipients[1].Attempts = true, 2
	r.Recipients[1].Reply = envelope.Reply{Text: "the server did not answer in 10m0s", From: "mx.b.example (192.0.2.1)"}
	r.DeliverBy, r.Release = now, arrived.Add(time.Hour)
	return r
}

func relayed() Report {
	r := failed()
	r.Recipients = r.Recipients[:1]
	r.Recipients[0].Action, r.Recipients[0].Status = Relayed, "2.0.0"
	r.Recipients[0].Reply = envelope.Reply{Code: 250, Enhanced: "2.0.0", Text: "queued", From: "mx.b.example (192.0.2.1)"}
	return r
}

func international() Report {
	r := failed()
	r.UTF8, r.HeaderOnly = true, false
	r.Recipients = r.Recipients[:1]
	r.Recipients[0].Final = envelope.Address{Local: "björn", Domain: "bücher.example"}
	r.Recipients[0].Original = "utf-8;björn@bücher.example"
	r.Recipients[0].Status = "5.6.7"
	r.Original = strings.NewReader("Subject: grüße\r\n\r\nhej\r\n")
	return r
}

// forwarded is of an address in UTF-8 to which one of ours leads: its sender may not read UTF-8 in headers.
func forwarded() Report {
	r := international()
	r.UTF8, r.HeaderOnly = false, true
	return r
}

func delivered() Report {
	r := failed()
	r.Recipients = r.Recipients[:1]
	r.Recipients[0].Action, r.Recipients[0].Status = Delivered, "2.1.5"
	r.Recipients[0].Reply = envelope.Reply{Enhanced: "2.1.5", Text: "delivered to the mailbox"}
	return r
}

func expanded() Report {
	r := delivered()
	r.Recipients[0].Action, r.Recipients[0].Reply = Expanded, envelope.Reply{}
	return r
}

// causes has a recipient for each class of failure that people meet.
func causes() Report {
	r := failed()
	r.Recipients = nil
	for _, cause := range []struct{ status, text string }{
		{"5.1.1", "user unknown"}, {"5.1.2", ""}, {"5.1.10", ""}, {"5.2.1", "account disabled"}, {"5.2.2", "over quota"},
		{"5.3.4", "too large"}, {"5.4.6", ""}, {"4.4.1", ""}, {"5.4.7", ""}, {"5.6.7", ""}, {"5.7.1", "looks like spam"},
		{"5.7.23", "SPF fail"}, {"5.7.30", ""}, {"5.7.19", ""}, {"5.7.99", "not today"}, {"5.0.0", "go away"},
	} {
		reply := envelope.Reply{Text: cause.text}
		if cause.text != "" {
			reply.Code, reply.Enhanced, reply.From = 550, cause.status, "mx.b.example (192.0.2.1)"
		}
		r.Recipients = append(r.Recipients, Recipient{
			Final:  envelope.Address{Local: "user" + strings.ReplaceAll(cause.status, ".", ""), Domain: "b.example"},
			Action: Failed, Status: cause.status, LastAttempt: now, Reply: reply,
		})
	}
	r.Recipients = append(r.Recipients, Recipient{
		Final: envelope.Address{Local: "rejected", Domain: "b.example"}, Action: Failed, Status: "5.7.1", LastAttempt: now,
		Reply: envelope.Reply{Code: 550, Enhanced: "5.7.1", Text: "the project is over"},
	})
	return r
}

var samples = map[string]func() Report{
	"failed": failed, "delayed": delayed, "relayed": relayed, "delivered": delivered, "expanded": expanded,
	"international": international, "forwarded": forwarded, "causes": causes,
}

func TestGolden(t *testing.T) {
	for name, sample := range samples {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			if err := Write(&b, sample()); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join("testdata", name+".eml")
			if *update {
				if err := os.WriteFile(file, b.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil || !bytes.Equal(b.Bytes(), want) {
				t.Errorf("%v; got:\n%s", err, b.Bytes())
			}
		})
	}
}

func TestRoundTrip(t *testing.T) {
	for name, sample := range samples {
		t.Run(name, func(t *testing.T) {
			var b bytes.Buffer
			want := sample()
			if err := Write(&b, want); err != nil {
				t.Fatal(err)
			}
			got, err := Parse(&b)
			if err != nil {
				t.Fatal(err)
			}
			if got.ID != want.ID || got.Answers != want.Answers || !got.DeliverBy.Equal(want.DeliverBy) || !got.Release.Equal(want.Release) {
				t.Errorf("got %+v", got)
			}
			if got.Host != want.Host || got.To != want.To || got.MessageID != want.MessageID || got.EnvelopeID != want.EnvelopeID ||
				!got.Date.Equal(want.Date) || !got.Arrived.Equal(want.Arrived) || got.UTF8 != want.UTF8 || len(got.Recipients) != len(want.Recipients) {
				t.Errorf("got %+v", got)
			}
			for i := range got.Recipients {
				equalRecipients(t, got.Recipients[i], want.Recipients[i])
			}
		})
	}
}

func equalRecipients(t *testing.T, got, want Recipient) {
	t.Helper()
	host, _, _ := strings.Cut(want.Reply.From, " ")
	if got.Final != want.Final || got.Original != want.Original || got.Action != want.Action || got.Status != want.Status ||
		got.Reply.String() != want.Reply.String() || got.Reply.Code != want.Reply.Code || got.Reply.From != host ||
		!got.LastAttempt.Equal(want.LastAttempt) || !got.RetryUntil.Equal(want.RetryUntil) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// parts reads a report with the standard library, which knows nothing of reports.
func parts(t *testing.T, report []byte) (kinds []string, bodies []string) {
	t.Helper()
	msg, err := mail.ReadMessage(bytes.NewReader(report))
	if err != nil {
		t.Fatal(err)
	}
	_, params, err := mime.ParseMediaType(msg.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	for mr := multipart.NewReader(msg.Body, params["boundary"]); ; {
		p, err := mr.NextPart()
		if err == io.EOF {
			return kinds, bodies
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		kinds, bodies = append(kinds, p.Header.Get("Content-Type")), append(bodies, string(b))
	}
}

func TestWholeMessageComesBackUnchanged(t *testing.T) {
	r := failed()
	r.HeaderOnly = false
	var b bytes.Buffer
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	kinds, bodies := parts(t, b.Bytes())
	want := []string{"text/plain; charset=utf-8", "message/delivery-status", "message/rfc822"}
	if !slices.Equal(kinds, want) || bodies[2] != original {
		t.Errorf("parts %q, the last:\n%q", kinds, bodies[2])
	}
}

func TestHeaderOnlyReadsNoFurther(t *testing.T) {
	r := failed()
	r.Original = io.MultiReader(strings.NewReader("A: b\r\n\r\n"), iotest.ErrReader(errors.New("the body was read")))
	var b bytes.Buffer
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	if _, bodies := parts(t, b.Bytes()); bodies[2] != "A: b" && bodies[2] != "A: b\r\n" {
		t.Errorf("returned %q", bodies[2])
	}
}

func TestHeaderIsBounded(t *testing.T) {
	for name, in := range map[string]string{
		"many lines":    strings.Repeat("A: b\r\n", 1<<20),
		"one long line": strings.Repeat("a", 4<<20),
	} {
		r := failed()
		r.Original = strings.NewReader(in)
		var b bytes.Buffer
		if err := Write(&b, r); err != nil || b.Len() > maxHeader+8<<10 {
			t.Errorf("%s: a report of %d octets, %v", name, b.Len(), err)
		}
	}
}

func TestFailingReaderFails(t *testing.T) {
	broken := errors.New("damaged")
	for _, headerOnly := range []bool{true, false} {
		r := failed()
		r.HeaderOnly = headerOnly
		r.Original = io.MultiReader(strings.NewReader("A: b\r\n"), iotest.ErrReader(broken))
		if err := Write(io.Discard, r); !errors.Is(err, broken) {
			t.Errorf("header only %v: %v", headerOnly, err)
		}
	}
}

func TestMadeBoundaryDiffers(t *testing.T) {
	seen := make(map[string]bool)
	for range 3 {
		r := failed()
		r.Boundary = ""
		var b bytes.Buffer
		if err := Write(&b, r); err != nil {
			t.Fatal(err)
		}
		got, err := Parse(&b)
		if err != nil || seen[got.Boundary] || len(got.Boundary) < 20 {
			t.Errorf("boundary %q, %v", got.Boundary, err)
		}
		seen[got.Boundary] = true
	}
}

func TestPeerCannotForge(t *testing.T) {
	evil := "x\r\nAction: delivered\r\n\r\n--=_edge--\r\n\x1b[2J\u202e"
	r := failed()
	r.EnvelopeID = evil
	r.Recipients[0].Original = "rfc822;" + evil
	r.Recipients[0].Reply = envelope.Reply{Code: 550, Text: strings.Repeat(evil, 100), From: evil}
	var b bytes.Buffer
	if err := Write(&b, r); err != nil {
		t.Fatal(err)
	}
	got, err := Parse(&b)
	if err != nil || got.Recipients[0].Action != Failed || len(got.Recipients) != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	var out bytes.Buffer
	r.Original = nil
	Write(&out, r)
	for line := range strings.SplitSeq(out.String(), "\r\n") {
		if strings.ContainsAny(line, "\r\n\x1b") || len(line) > 998 || strings.HasPrefix(line, "Action: delivered") {
			t.Errorf("line %q", line)
		}
	}
}

func TestStrayLineEnds(t *testing.T) {
	for in, want := range map[string]string{
		"a\nb\rc\r\nd\r": "a\r\nb\r\nc\r\nd\r\n",
		"\r\r\n\n":       "\r\n\r\n\r\n",
		"":               "",
	} {
		r := failed()
		r.Original, r.HeaderOnly = strings.NewReader(in), false
		var b bytes.Buffer
		if err := Write(&b, r); err != nil {
			t.Fatal(err)
		}
		if _, bodies := parts(t, b.Bytes()); bodies[2] != want {
			t.Errorf("%q became %q, want %q", in, bodies[2], want)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, in := range []string{
		"", "Subject: x\r\n\r\nhello\r\n",
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\n\r\n--x--\r\n",
		"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\n\r\n--x--\r\n",
		"Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n\r\nAction: failed\r\n--x--\r\n",
	} {
		if r, err := Parse(strings.NewReader(in)); !errors.Is(err, ErrNotReport) {
			t.Errorf("%q was read as %+v, %v", in, r, err)
		}
	}
}

func TestParseBounds(t *testing.T) {
	head := "Content-Type: multipart/report; boundary=x\r\n\r\n--x\r\nContent-Type: message/delivery-status\r\n\r\nReporting-MTA: dns; a\r\n"
	r, err := Parse(strings.NewReader(head + strings.Repeat("\r\nFinal-Recipient: rfc822; a@b.c\r\n", 100_000)))
	if err != nil || len(r.Recipients) != maxRecipients {
		t.Errorf("%d recipients, %v", len(r.Recipients), err)
	}
}

func FuzzParse(f *testing.F) {
	for _, sample := range samples {
		var b bytes.Buffer
		Write(&b, sample())
		f.Add(b.Bytes())
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Parse(bytes.NewReader(in))
		if err != nil {
			return
		}
		if len(r.Recipients) == 0 || len(r.Recipients) > maxRecipients {
			t.Fatalf("%d recipients", len(r.Recipients))
		}
		for _, rcpt := range r.Recipients {
			if strings.ContainsAny(rcpt.Reply.String()+rcpt.Status+rcpt.Original, "\r\n\x00\x1b") {
				t.Fatalf("control characters in %+v", rcpt)
			}
		}
	})
}

// TestCorpus reads what mail servers have written. A report that has a recipient must be read; in those that are not, no
// server names one.
func TestCorpus(t *testing.T) {
	root := filepath.Join("..", "..", "..", "shared", "corpus", "eml")
	if _, err := os.Stat(root); err != nil {
		t.Skip("no corpus beside the repository")
	}
	reports, unread, addresses, statuses, recipients := 0, 0, 0, 0, 0
	err := filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		r, err := Parse(bytes.NewReader(raw))
		if err != nil {
			if low := bytes.ToLower(raw); bytes.Contains(low, []byte("\nfinal-recipient:")) && bytes.Contains(low, []byte("report-type=")) {
				unread++
				t.Logf("not read: %s", name)
			}
			return nil
		}
		reports++
		for _, rcpt := range r.Recipients {
			recipients++
			if !rcpt.Final.IsZero() {
				addresses++
			}
			if rcpt.Status != "" {
				statuses++
			}
		}
		return nil
	})
	t.Logf("%d reports about %d recipients, %d with an address, %d with a status; %d not read", reports, recipients, addresses, statuses, unread)
	if err != nil || reports < 100 || unread > 12 || addresses*10 < recipients*9 || statuses*10 < recipients*9 {
		t.Error("too little was read:", err)
	}
}

// TestSecondReader: a program that knows nothing of us reads the same out of the golden reports as our own reader.
func TestSecondReader(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	files, err := filepath.Glob(filepath.Join("testdata", "*.eml"))
	if err != nil || len(files) != len(samples) {
		t.Fatal(files, err)
	}
	slices.Sort(files)
	var want strings.Builder
	for _, file := range files {
		name := strings.TrimSuffix(filepath.Base(file), ".eml")
		r := samples[name]()
		fmt.Fprintf(&want, "%s %s message/%s %s\n", name, r.reportType(), r.reportType(), r.originalType())
		for _, rcpt := range r.Recipients {
			if !r.UTF8 {
				fmt.Fprintf(&want, "  %s; %s %s %s\n", addressType(rcpt.Final), r.fact(rcpt.Final.String()), rcpt.Action, rcpt.Status)
			}
		}
	}
	out, err := exec.Command(python, append([]string{"-I", "testdata/read.py"}, files...)...).CombinedOutput()
	if err != nil || string(out) != want.String() {
		t.Errorf("%v; read:\n%s\nwant:\n%s", err, out, want.String())
	}
}
