package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const corpus = "../../../shared/corpus/dmarc"

func TestReadCorpus(t *testing.T) {
	if _, err := os.Stat(corpus); err != nil {
		t.Skip("the corpus is not here")
	}
	for _, tt := range []struct {
		file, organization, id string
		policies               int
		sum                    Summary
		details                int
	}{
		{"domainaware-parsedmarc/smtp_tls_rfc8460.json", "Company-X", "5065427c-23d3-47ca-b6e0-946ea0e8c4be", 1, Summary{5326, 303}, 3},
		{"domainaware-parsedmarc/smtp_tls_smtp_tls.json", "Example Inc.", "2024-01-09T00:00:00Z_example.com", 1, Summary{0, 3}, 2},
		{"mail-auth/tlsrpt_rpt01.json", "Company-X", "5065427c-23d3-47ca-b6e0-946ea0e8c4be", 1, Summary{5326, 303}, 3},
		{"mail-auth/tlsrpt_rpt03.json", "Google Inc.", "2019-04-14T00:00:00Z_example.org", 2, Summary{2, 0}, 0},
	} {
		text, err := os.ReadFile(filepath.Join(corpus, tt.file))
		if err != nil {
			t.Fatal(err)
		}
		for form, in := range map[string][]byte{"plain": text, "packed": pack(text), "mailed": mailed(text)} {
			r, err := Read(bytes.NewReader(in))
			if err != nil {
				t.Errorf("%s, %s: %v", tt.file, form, err)
				continue
			}
			details := 0
			for _, p := range r.Policies {
				details += len(p.Failures)
			}
			if r.Organization != tt.organization || r.ID != tt.id || len(r.Policies) != tt.policies || r.Sum() != tt.sum || details != tt.details {
				t.Errorf("%s, %s: %+v", tt.file, form, r)
			}
			if r.Range.Start.IsZero() || !r.Range.End.After(r.Range.Start) {
				t.Errorf("%s, %s: of %v to %v", tt.file, form, r.Range.Start, r.Range.End)
			}
		}
	}
}

func pack(text []byte) []byte {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	w.Write(text)
	w.Close()
	return b.Bytes()
}

func mailed(text []byte) []byte {
	return fmt.Appendf(nil, "From: a@b.test\r\nContent-Type: multipart/report; report-type=tlsrpt; boundary=x\r\n\r\n--x\r\n\r\nhello\r\n--x\r\n"+
		"Content-Type: application/tlsrpt+gzip\r\nContent-Transfer-Encoding: base64\r\n\r\n%s--x--\r\n", lines(base64.StdEncoding.EncodeToString(pack(text))))
}

const small = `{"organization-name":"x","date-range":{"start-datetime":"2026-01-01T00:00:00Z","end-datetime":"2026-01-01T23:59:59Z"},
"report-id":"1","policies":[{"policy":{"policy-type":"sts","policy-string":"version: STSv1","mx-host":["a","b"]},"summary":{"total-successful-session-count":1}}]}`

func TestRead(t *testing.T) {
	for name, in := range map[string]string{
		"a byte order mark":       "\ufeff" + small,
		"white space":             "\r\n " + small,
		"packed":                  string(pack([]byte(small))),
		"with rubbish behind it":  string(pack([]byte(small))) + "rubbish",
		"a mail with JSON":        "Content-Type: application/tlsrpt+json\n\n" + small,
		"a mail with a file":      "Content-Type: application/octet-stream; name=\"a!b!1!2.JSON\"\n\n" + small,
		"a mail with a gzip file": "Content-Type: application/gzip\nContent-Disposition: attachment; filename=x.json.gz\nContent-Transfer-Encoding: base64\n\n" + base64.StdEncoding.EncodeToString(pack([]byte(small))),
	} {
		r, err := Read(strings.NewReader(in))
		if err != nil || r.ID != "1" || !slices.Equal(r.Policies[0].Policy.MX, []string{"a", "b"}) || !slices.Equal(r.Policies[0].Policy.Strings, []string{"version: STSv1"}) {
			t.Errorf("%s: %+v, %v", name, r, err)
		}
	}
}

// D13: what is no report, or unpacks to too much, is refused with little work.
func TestD13ReadRefuses(t *testing.T) {
	bomb := pack(slices.Concat([]byte(small), bytes.Repeat([]byte(" "), 1<<20)))
	for name, in := range map[string][]byte{
		"nothing":                  nil,
		"text":                     []byte("hello"),
		"other JSON":               []byte(`{"a":1}`),
		"a list":                   []byte(`[]`),
		"half of it":               []byte(small[:len(small)/2]),
		"half of it, packed":       pack([]byte(small))[:60],
		"a bomb":                   bomb,
		"a mailed bomb":            mailed(slices.Concat([]byte(small), bytes.Repeat([]byte(" "), 1<<20))),
		"a bomb in a bomb":         pack(bomb),
		"more than 10 MiB":         slices.Concat([]byte(small), bytes.Repeat([]byte(" "), maxJSON)),
		"more than 16 MiB of mail": bytes.Repeat([]byte("x"), maxInput+1),
		"too many policies":        []byte(`{"policies":[` + strings.Repeat(`{},`, maxObjects) + `{}]}`),
		"too many texts":           []byte(`{"policies":[{"policy":{"mx-host":[` + strings.Repeat(`"",`, maxValues+1) + `""]}}]}`),
		"too deep":                 []byte(strings.Repeat(`{"policies":`, 15_000)),
		"a mail without a report":  []byte("From: a@b.test\r\n\r\nhello\r\n"),
		"a report in a message":    []byte("Content-Type: message/rfc822\r\n\r\nContent-Type: application/tlsrpt+json\r\n\r\n" + small),
	} {
		if _, err := Read(bytes.NewReader(in)); !errors.Is(err, ErrNoReport) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(small))
	f.Add(pack([]byte(small)))
	f.Add(mailed([]byte(small)))
	f.Fuzz(func(t *testing.T, in []byte) {
		r, err := Read(bytes.NewReader(in))
		if err != nil {
			return
		}
		again, err := json.Marshal(r)
		if err != nil {
			return // of a year that RFC 3339 has no form for
		}
		if s, err := Read(bytes.NewReader(again)); err != nil || s.Sum() != r.Sum() || len(s.Policies) != len(r.Policies) {
			t.Errorf("%s: %+v, %v", again, s, err)
		}
	})
}

func TestParseRecords(t *testing.T) {
	for _, tt := range []struct {
		records []string
		want    string // targets; empty is not asked
	}{
		{[]string{"v=TLSRPTv1;rua=mailto:reports@example.com"}, "reports@example.com"},
		{[]string{"v=TLSRPTv1; rua=mailto:reports@example.com,https://r.example.com/v1?x=y;"}, "reports@example.com https://r.example.com/v1?x=y"},
		{[]string{"v=TLSRPTv1 ; x=y; rua=HTTPS://r.example.com/a%2Cb , mailto:a%21b@example.com?subject=x"}, "https://r.example.com/a%2Cb a!b@example.com"},
		{[]string{"v=spf1 -all", "v=TLSRPTv1; rua=mailto:a@b.example"}, "a@b.example"},
		{[]string{"v=TLSRPTv1; rua=mailto:a@b.example,mailto:c@d.example,mailto:e@f.example"}, "a@b.example c@d.example"},
		{[]string{"v=TLSRPTv1; rua=ftp://x.example/,mailto:,mailto:no address,mailto:a@b.example"}, "a@b.example"},
		{[]string{"v=TLSRPTv1; rua=mailto:a@b\u00fccher.example"}, "a@xn--bcher-kva.example"},
		{[]string{"v=TLSRPTv1; rua=mailto:a@b.example", "v=TLSRPTv1; rua=mailto:a@b.example"}, ""},
		{[]string{"v=TLSRPTv2; rua=mailto:a@b.example"}, ""},
		{[]string{"v=TLSRPTv1"}, ""},
		{[]string{"v=TLSRPTv1; rua="}, ""},
		{[]string{"rua=mailto:a@b.example; v=TLSRPTv1"}, ""},
		{[]string{"v=TLSRPTv1; rua=http://r.example.com/"}, ""},
		{[]string{"v=TLSRPTv1; rua=https://me:secret@r.example.com/"}, ""},
		{[]string{"v=TLSRPTv1; rua=https:///x"}, ""},
		{nil, ""},
	} {
		targets, err := parseRecords(tt.records)
		var got []string
		for _, x := range targets {
			if x.url != "" {
				got = append(got, x.url)
			} else {
				got = append(got, x.mail.String())
			}
		}
		if strings.Join(got, " ") != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, ErrNotAsked) {
			t.Errorf("%q: %q, %v", tt.records, got, err)
		}
	}
}

// What we tell others to publish, we understand.
func TestRecord(t *testing.T) {
	for _, address := range []string{"postmaster@example.org", "a!b@example.org", "a+b@example.org"} {
		_, text, _ := strings.Cut(Record("example.org", address), "TXT ")
		targets, err := parseRecords([]string{strings.Trim(text, `"`)})
		if err != nil || len(targets) != 1 || targets[0].mail.String() != address {
			t.Errorf("%s: %v, %v", text, targets, err)
		}
	}
}

func TestIsReal(t *testing.T) {
	for name, want := range map[string]bool{
		"mail.example.org": true, "MX.Example.Net.": true, "localhost": false, "mail": false, "mail.localhost": false, "mx.test": false,
		"nas.local": false, "router.home.arpa": false, "[192.0.2.1]": false, "fe80::1": false, "": false, "mail.latest": true,
	} {
		if got := IsReal(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
	}
}
