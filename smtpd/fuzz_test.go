package smtpd

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

// slowHeader is what header should find, written the plain way.
func slowHeader(in []byte) (received, from int, date bool) {
	var fields []string
	for line := range bytes.Lines(in) {
		if s := string(line); s == "\n" || s == "\r\n" {
			break
		} else if (s[0] == ' ' || s[0] == '\t') && len(fields) > 0 {
			fields[len(fields)-1] += s
		} else {
			fields = append(fields, s)
		}
	}
	for _, field := range fields {
		name, _, ok := strings.Cut(field, ":")
		switch strings.ToLower(strings.TrimRight(name, " \t")) {
		case "received":
			received += map[bool]int{true: 1}[ok]
		case "from":
			from = min(2, from+map[bool]int{true: 1}[ok])
		case "date":
			date = date || ok
		}
	}
	return received, from, date
}

// FuzzHeaderScan holds the scan against a plain one, and against itself when the header
// comes in two pieces.
func FuzzHeaderScan(f *testing.F) {
	for _, s := range []string{
		"", "\r\n", "Received: x\r\n y\r\nreceived : z\r\n\r\nReceived: no", "From: a@b\r\nFrom: c@d\r\nFROM: e",
		"Date:x\nMessage-ID: <a@b>\n\n", " Date: folded first\r\nDate\r\n: x\r\n", "\r\r\nDate: x", "Date: \r\n\r\n", "Sender: a@b\r\nsender : c@d\r\n", "Message-ID:" + strings.Repeat("x", 2000),
	} {
		f.Add([]byte(s), uint16(len(s)/2))
	}
	f.Fuzz(func(t *testing.T, in []byte, cut uint16) {
		if len(in) > fieldSize {
			return
		}
		var whole, parts header
		whole.write(in)
		whole.end()
		at := min(int(cut), len(in))
		parts.write(in[:at])
		parts.write(in[at:])
		parts.end()
		if whole.received != parts.received || whole.date != parts.date || whole.messageID != parts.messageID ||
			!slices.Equal(whole.from.bodies, parts.from.bodies) || !slices.Equal(whole.sender.bodies, parts.sender.bodies) {
			t.Errorf("whole %+v, in parts %+v", whole, parts)
		}
		received, from, date := slowHeader(in)
		if whole.received != received || len(whole.from.bodies) != from || whole.date != date {
			t.Errorf("found %+v, want %d Received, %d From, Date %v", whole, received, from, date)
		}
	})
}

func TestHeaderScanIsBounded(t *testing.T) {
	var h header
	piece := []byte(strings.Repeat("x", 1000))
	h.write([]byte("From: "))
	for range 2000 {
		h.write(piece)
		if len(h.field) > fieldSize {
			t.Fatalf("%d octets of a field are kept", len(h.field))
		}
	}
	if !h.ended || !h.from.cut || h.field != nil {
		t.Errorf("after 2 MB: %v %v", h.ended, h.from.cut)
	}
}
