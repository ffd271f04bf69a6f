package tlspolicy

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestRecordID(t *testing.T) {
	for _, tt := range []struct {
		name  string
		texts []string
		want  string
	}{
		{"as RFC 8461 has it", []string{"v=STSv1; id=20160831085700Z;"}, "20160831085700Z"},
		{"without the last delimiter", []string{"v=STSv1;id=1"}, "1"},
		{"white space around delimiters", []string{"v=STSv1 \t; \t id=1 ; "}, "1"},
		{"others are passed over", []string{"v=spf1 -all", "v=STSv1; id=1;", "v=STSv2; id=2;", ""}, "1"},
		{"extensions", []string{"v=STSv1; a_b-c.d=!~; id=1"}, "1"},
		{"the first id counts", []string{"v=STSv1; id=1; id=2;"}, "1"},
		{"32 letters and digits", []string{"v=STSv1; id=" + strings.Repeat("a", 32)}, strings.Repeat("a", 32)},
		{"none", nil, ""},
		{"two", []string{"v=STSv1; id=1;", "v=STSv1; id=2;"}, ""},
		{"two that are the same", []string{"v=STSv1; id=1;", "v=STSv1; id=1;"}, ""},
		{"one good and one bad", []string{"v=STSv1; id=1;", "v=STSv1; id;"}, ""},
		{"no id", []string{"v=STSv1;"}, ""},
		{"no id but extensions", []string{"v=STSv1; a=b;"}, ""},
		{"an empty id", []string{"v=STSv1; id=;"}, ""},
		{"an id with what it cannot have", []string{"v=STSv1; id=2016-08-31;"}, ""},
		{"an id that is too long", []string{"v=STSv1; id=" + strings.Repeat("a", 33)}, ""},
		{"the version last", []string{"id=1; v=STSv1;"}, ""},
		{"white space before the version", []string{" v=STSv1; id=1;"}, ""},
		{"the version in small letters", []string{"v=stsv1; id=1;"}, ""},
		{"the name in capital letters", []string{"v=STSv1; ID=1;"}, ""},
		{"white space around the equals sign", []string{"v=STSv1; id = 1;"}, ""},
		{"an empty field", []string{"v=STSv1;; id=1;"}, ""},
		{"two delimiters at the end", []string{"v=STSv1; id=1;;"}, ""},
		{"a malformed extension", []string{"v=STSv1; id=1; -a=b"}, ""},
		{"a value with an equals sign", []string{"v=STSv1; id=1; a=b=c"}, ""},
		{"a name that is too long", []string{"v=STSv1; id=1; " + strings.Repeat("a", 33) + "=b"}, ""},
		{"no delimiter after the version", []string{"v=STSv1 id=1"}, ""},
		{"control characters", []string{"v=STSv1; id=1; a=\x01"}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := recordID(tt.texts)
			if got != tt.want || (err == nil) != (tt.want != "") || err != nil && !errors.Is(err, errRecord) {
				t.Errorf("%q, %v", got, err)
			}
		})
	}
}

const rfcPolicy = "version: STSv1\r\nmode: enforce\r\nmx: mail.example.com\r\nmx: *.example.net\r\nmx: backupmx.example.com\r\nmax_age: 604800\r\n"

func TestParsePolicy(t *testing.T) {
	many := strings.Repeat("mx: a.example\n", maxMX)
	for _, tt := range []struct {
		name, file string
		want       string // mode, hosts, max_age; empty is an error
	}{
		{"as RFC 8461 has it", rfcPolicy, "enforce [mail.example.com *.example.net backupmx.example.com] 168h0m0s"},
		{"LF alone, and no last one", strings.TrimSuffix(strings.ReplaceAll(rfcPolicy, "\r", ""), "\n"), "enforce [mail.example.com *.example.net backupmx.example.com] 168h0m0s"},
		{"without white space, in any order", "mx:a.example\nmax_age:1\nmode:testing\nversion:STSv1", "testing [a.example] 1s"},
		{"white space at the end", "version: STSv1 \t\nmode: testing \nmx: a.example\t\nmax_age: 1 ", "testing [a.example] 1s"},
		{"mode none needs no hosts", "version: STSv1\nmode: none\nmax_age: 86400\n", "none [] 24h0m0s"},
		{"what is not known is passed over", rfcPolicy + "x-y.z_1: grüße und: mehr\n", "enforce [mail.example.com *.example.net backupmx.example.com] 168h0m0s"},
		{"the first counts", "version: STSv1\nmode: enforce\nmode: none\nmode: bad\nmx: a.example\nmax_age: 1\nmax_age: x", "enforce [a.example] 1s"},
		{"names in one form", "version: STSv1\nmode: enforce\nmx: A.Example.\nmx: *.Bücher.example\nmax_age: 1", "enforce [a.example *.xn--bcher-kva.example] 1s"},
		{"a year at most", "version: STSv1\nmode: none\nmax_age: 9999999999", "none [] 8766h0m0s"},
		{"at once over", "version: STSv1\nmode: none\nmax_age: 0", "none [] 0s"},
		{"as many hosts as may be", "version: STSv1\nmode: enforce\nmax_age: 1\n" + many, fmt.Sprint("enforce [", strings.TrimSpace(strings.Repeat("a.example ", maxMX)), "] 1s")},
		{"more hosts", "version: STSv1\nmode: enforce\nmax_age: 1\n" + many + "mx: b.example", ""},
		{"empty", "", ""},
		{"no version", "mode: none\nmax_age: 1", ""},
		{"another version", "version: STSv2\nmode: none\nmax_age: 1", ""},
		{"no mode", "version: STSv1\nmx: a.example\nmax_age: 1", ""},
		{"another mode", "version: STSv1\nmode: strict\nmx: a.example\nmax_age: 1", ""},
		{"no max_age", "version: STSv1\nmode: none", ""},
		{"a max_age that is no number", "version: STSv1\nmode: none\nmax_age: 1d", ""},
		{"a negative max_age", "version: STSv1\nmode: none\nmax_age: -1", ""},
		{"a max_age with a sign", "version: STSv1\nmode: none\nmax_age: +1", ""},
		{"a max_age that is too long", "version: STSv1\nmode: none\nmax_age: 00000000001", ""},
		{"no hosts", "version: STSv1\nmode: enforce\nmax_age: 1", ""},
		{"an address", "version: STSv1\nmode: enforce\nmx: [192.0.2.1]\nmax_age: 1", ""},
		{"a star alone", "version: STSv1\nmode: enforce\nmx: *\nmax_age: 1", ""},
		{"a star in the middle", "version: STSv1\nmode: enforce\nmx: a.*.example\nmax_age: 1", ""},
		{"a star in a label", "version: STSv1\nmode: enforce\nmx: mx*.example\nmax_age: 1", ""},
		{"an empty host", "version: STSv1\nmode: enforce\nmx: \nmax_age: 1", ""},
		{"a line that is none", rfcPolicy + "hello", ""},
		{"a page", "<!DOCTYPE html>\n<html>", ""},
		{"control characters", rfcPolicy + "x: \x00", ""},
		{"no UTF-8", rfcPolicy + "x: \xff", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, err := ParsePolicy(tt.file)
			got := ""
			if err == nil {
				got = fmt.Sprint(s.Mode, " ", s.MX, " ", s.MaxAge)
			} else if !errors.Is(err, errPolicy) {
				t.Errorf("%v is not errPolicy", err)
			}
			if got != tt.want {
				t.Errorf("got  %s, %v\nwant %s", got, err, tt.want)
			}
		})
	}
}

// TestLists has the examples of RFC 8461, 4.1.
func TestLists(t *testing.T) {
	s := &STS{MX: []string{"*.example.com", "mx.example.net"}}
	for host, want := range map[string]bool{
		"mail.example.com": true, "MAIL.EXAMPLE.COM": true, "example.com": false, "foo.bar.example.com": false,
		"mx.example.net": true, "a.mx.example.net": false, "example.net": false, "notexample.com": false,
		"com": false, "": false, ".example.com": true, "*.example.com": true, "mx.example.net.evil.example": false,
	} {
		if got := s.Lists(host); got != want {
			t.Errorf("%q: %v", host, got)
		}
	}
}

func FuzzRecord(f *testing.F) {
	f.Add("v=STSv1; id=20160831085700Z;", "v=spf1 -all")
	f.Add("v=STSv1;id=1", "v=STSv1; a=b; id=2")
	f.Fuzz(func(t *testing.T, a, b string) {
		id, err := recordID([]string{a, b})
		if (err == nil) != isID(id) {
			t.Errorf("%q, %v", id, err)
		}
		if err == nil && !strings.Contains(a+b, "id="+id) {
			t.Errorf("%q is not in it", id)
		}
	})
}

func FuzzPolicy(f *testing.F) {
	f.Add(rfcPolicy)
	f.Add("version: STSv1\nmode: none\nmax_age: 86400\n")
	f.Fuzz(func(t *testing.T, file string) {
		s, err := ParsePolicy(file)
		if err != nil {
			if !utf8.ValidString(err.Error()) || strings.ContainsAny(err.Error(), "\r\n") || len(err.Error()) > 500 {
				t.Errorf("not fit for a log: %q", err)
			}
			return
		}
		if s.MaxAge < 0 || s.MaxAge > maxAge*time.Second || len(s.MX) > maxMX || s.Mode != Off && len(s.MX) == 0 {
			t.Errorf("%+v", s)
		}
		again, err := ParsePolicy(strings.Join(s.report().Strings, "\n"))
		if err != nil || fmt.Sprint(again) != fmt.Sprint(s) {
			t.Errorf("%v becomes %v, %v", s, again, err)
		}
		s.Fetched, s.Used, s.Tried, s.ID = time.Unix(1, 0), time.Unix(2, 0), time.Time{}, "1"
		stored, err := decodeSTS(s.encode())
		if err != nil || fmt.Sprint(stored) != fmt.Sprint(s) {
			t.Errorf("%v is stored as %v, %v", s, stored, err)
		}
	})
}

func FuzzStored(f *testing.F) {
	f.Add((&STS{ID: "1", Mode: Enforce, MX: []string{"a"}, Fetched: time.Unix(1, 0)}).encode())
	f.Add((&Memory{Since: time.Unix(1, 0), Sessions: 5}).encode())
	f.Fuzz(func(t *testing.T, record []byte) {
		if s, err := decodeSTS(record); err == nil {
			s.Lists("a.example")
			s.Expires()
		}
		if m, err := decodeMemory(record); err == nil {
			m.Established()
		}
	})
}
