package mime

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// typical is a mail of about 4 KB as most are: trace headers, text and HTML.
func typical() []byte {
	return []byte(crlf(strings.Repeat(`Received: from mail.example.test (mail.example.test [192.0.2.1])
	by mx.example.org with ESMTPS id 4XyZ1234567890
	for <bob@example.org>; Mon,  2 Jan 2006 15:04:05 -0700
`, 3) + `DKIM-Signature: v=1; a=rsa-sha256; c=relaxed/relaxed; d=example.test; s=s1;
	h=from:to:subject:date:message-id:mime-version:content-type;
	bh=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=;
	b=` + strings.Repeat("x", 300) + `
From: Ann Other <ann@example.test>
To: Bob <bob@example.org>, "Carl, C." <carl@example.org>
Cc: team@example.org
Subject: =?utf-8?q?Gr=C3=BC=C3=9Fe?= from the bench
Date: Mon, 2 Jan 2006 15:04:05 -0700
Message-ID: <20060102150405.12345@example.test>
In-Reply-To: <20060101150405.12345@example.org>
References: <20060101150405.12345@example.org>
MIME-Version: 1.0
User-Agent: bench
Content-Type: multipart/alternative; boundary="----=_Part_12345"

------=_Part_12345
Content-Type: text/plain; charset=utf-8
Content-Transfer-Encoding: quoted-printable

` + strings.Repeat("Hello Bob, this is a line of text as people write them.\n", 15) + `
------=_Part_12345
Content-Type: text/html; charset=utf-8
Content-Transfer-Encoding: quoted-printable

` + strings.Repeat("<p>Hello Bob, this is a line of text as people write them.</p>\n", 20) + `
------=_Part_12345--
`))
}

// attachment is a mail of about 10 MB, most of it base64.
func attachment() []byte {
	return []byte(crlf("Content-Type: multipart/mixed; boundary=b\n\n--b\n\nhello\n--b\n" +
		"Content-Type: application/pdf\nContent-Transfer-Encoding: base64\n\n" +
		strings.Repeat(strings.Repeat("QUJD", 19)+"\n", 130_000) + "--b--\n"))
}

func BenchmarkScan(b *testing.B) {
	for _, c := range []struct {
		name string
		msg  []byte
	}{
		{"typical", typical()},
		{"attachment", attachment()},
		{"plain", append([]byte("Subject: x\r\n\r\n"), bytes.Repeat([]byte("a line of text, not too long, not too short\r\n"), 200_000)...)},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.SetBytes(int64(len(c.msg)))
			b.ReportAllocs()
			for b.Loop() {
				s := NewScanner()
				for rest := c.msg; len(rest) > 0; {
					n := min(len(rest), 32<<10)
					s.Write(rest[:n])
					rest = rest[n:]
				}
				s.Finish()
			}
		})
	}
}

func BenchmarkStored(b *testing.B) {
	s := scan(string(typical()))
	stored, _ := s.AppendBinary(nil)
	b.Run("append", func(b *testing.B) {
		b.ReportAllocs()
		buf := make([]byte, 0, 4096)
		for b.Loop() {
			s.AppendBinary(buf)
		}
		b.ReportMetric(float64(len(stored)), "octets")
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := Decode(stored); err != nil {
				b.Fatal(err)
			}
		}
	})
}

func BenchmarkText(b *testing.B) {
	p := &Part{Type: "text", Encoding: "base64"}
	body := bytes.Repeat([]byte(strings.Repeat("QUJD", 19)+"\r\n"), 1000)
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		r, _ := TextReader(p, bytes.NewReader(body))
		io.Copy(io.Discard, r)
	}
}

// TestAllocations holds the cost of what is done once per delivered message.
func TestAllocations(t *testing.T) {
	msg := typical()
	if n := testing.AllocsPerRun(100, func() {
		s := NewScanner()
		s.Write(msg)
		s.Finish()
	}); n > 40 {
		t.Errorf("%v allocations for a message of %d octets", n, len(msg))
	}
}

func BenchmarkFields(b *testing.B) {
	header := typical()
	header = header[:scan(string(header)).Root.Header.Len]
	names := []string{"From", "To", "Cc", "Bcc", "Subject", "Date", "Message-ID", "References", "In-Reply-To"}
	b.SetBytes(int64(len(header)))
	b.ReportAllocs()
	var out []byte
	for b.Loop() {
		out = AppendFields(out[:0], header, names, false)
	}
}
