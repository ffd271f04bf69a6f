package mailauth

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"postroad/internal/dns/dnstest"
)

// dkimCorpus is part of the corpus.
const dkimCorpus = "../../../shared/corpus/dkim/"

func corpusFiles(t *testing.T, pattern string) []string {
	t.Helper()
	files, err := filepath.Glob(dkimCorpus + pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) == 0 {
		t.Skip("the corpus is not there")
	}
	return files
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// wire is a text with the line ends that it has on the wire.
func wire(s string) string { return regexp.MustCompile(`\r?\n`).ReplaceAllString(s, "\r\n") }

// Messages are canonical as the tests of RFC 6376's first implementations have it.
func TestCanonicalForms(t *testing.T) {
	for _, name := range corpusFiles(t, "flanker/canon_email.*") {
		number := filepath.Ext(name)
		for form, relaxed := range map[string]bool{"simple": false, "relaxed": true} {
			if number == ".24" && relaxed {
				continue // white space after the last line end is kept there: RFC 6376, 3.4.4, has it dropped
			}
			want := readFile(t, dkimCorpus+"flanker/canon_"+form+".expected"+number)
			if got := canonicalMessage(t, wire(readFile(t, name)), relaxed); got != want {
				t.Errorf("%s, %s:\ngot  %q\nwant %q", name, form, got, want)
			}
		}
	}
}

// canonicalMessage is a whole message in one form, with the empty line between header and body.
func canonicalMessage(t *testing.T, text string, relaxed bool) string {
	t.Helper()
	br := bufio.NewReader(strings.NewReader(text))
	fields, err := readHeader(br)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	for i := range fields {
		out = canonical(out, fields[i].raw, relaxed)
	}
	var body bytes.Buffer
	c := &canonicalBody{w: &body, relaxed: relaxed}
	if _, err := br.WriteTo(c); err != nil {
		t.Fatal(err)
	}
	c.Close()
	return string(out) + "\r\n" + body.String()
}

// Messages that another program has verdicts on, with the records that it was told.
func TestVerifiedBesideOthers(t *testing.T) {
	for _, name := range corpusFiles(t, "albertito-chasquid/*.result") {
		base := strings.TrimSuffix(name, ".result")
		var want struct{ Results []struct{ Error string } }
		if err := json.Unmarshal([]byte(readFile(t, name)), &want); err != nil {
			t.Fatal(err)
		}
		r := &dnstest.Resolver{}
		if b, err := os.ReadFile(base + ".dns"); err == nil {
			records(r, string(b))
		}
		got, err := Verify(t.Context(), r, time.Unix(1_710_000_000, 0), strings.NewReader(wire(readFile(t, base+".msg"))))
		if err != nil {
			t.Fatal(err)
		}
		for i, w := range want.Results {
			if i >= len(got.DKIM) || (got.DKIM[i].Verdict == Pass) != (w.Error == "") {
				t.Errorf("%s, signature %d: %+v, want %q", filepath.Base(base), i+1, got.DKIM, w.Error)
			}
		}
	}
}

// records reads lines of "name: record", which go on behind a backslash.
func records(r *dnstest.Resolver, text string) {
	for line := range strings.Lines(strings.ReplaceAll(text, "\\\n", "")) {
		name, record, ok := strings.Cut(strings.TrimSpace(line), ":")
		switch record = strings.TrimSpace(record); {
		case !ok:
		case strings.HasPrefix(record, "TEMPERROR"), strings.HasPrefix(record, "temp"):
			r.Fail(name, dnstest.ErrServFail)
		default:
			r.TXT(name, record)
		}
	}
}

// The messages that RFC 6376 and RFC 8463 are explained by, and what was done to them.
func TestRFCMessages(t *testing.T) {
	r := &dnstest.Resolver{}
	records(r, readFileOrSkip(t, dkimCorpus+"albertito-chasquid/01-rfc8463.dns"))
	for name, want := range map[string]string{
		"lieser-dkim_verifier/data_rfc8463-A.3.eml":                   "pass pass",
		"lieser-dkim_verifier/data_rfc8463-A.3-key_algo_mismatch.eml": "permerror permerror",
		"dkimpy-dkimpy/rfc6376.signed.msg":                            "pass pass",
		"dkimpy-dkimpy/rfc6376.signed.rsa.msg":                        "pass",
		"dkimpy-dkimpy/rfc6376.signed.no_t.msg":                       "fail", // dkimpy says so too
	} {
		got, err := Verify(t.Context(), r, time.Unix(1_710_000_000, 0), strings.NewReader(wire(readFile(t, dkimCorpus+name))))
		if err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, d := range got.DKIM {
			words = append(words, string(d.Verdict))
		}
		if s := strings.Join(words, " "); s != want {
			t.Errorf("%s: %q, want %q: %+v", name, s, want, got.DKIM)
		}
	}
}

func readFileOrSkip(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Skip("the corpus is not there")
	}
	return string(b)
}

// Nothing in the corpus stops the verifier, whatever it is.
func TestTheCorpusIsRead(t *testing.T) {
	for _, name := range append(corpusFiles(t, "*/*"), corpusFiles(t, "../arc/*/*")...) {
		if _, err := Verify(t.Context(), &dnstest.Resolver{}, time.Now(), strings.NewReader(wire(readFile(t, name)))); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
