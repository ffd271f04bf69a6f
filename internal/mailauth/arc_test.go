package mailauth

import (
	"bufio"
	"errors"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"postroad/internal/dns/dnstest"
)

// arcSuite is the directory of the ARC test suite of dmarc.org; it is part of the corpus.
const arcSuite = "../../../shared/corpus/arc/"

// scenario is one document of the suite.
type scenario struct {
	tests   []map[string]string // by field; "name" too
	records map[string]string
	extra   map[string]string // what stands beside them
}

// readSuite reads as much of YAML as the suite has: mappings, and texts as blocks.
func readSuite(t *testing.T, name string) (list []scenario) {
	t.Helper()
	text, err := os.ReadFile(arcSuite + name)
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("the corpus is not there")
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, doc := range regexp.MustCompile(`(?m)^---\s*$`).Split(string(text), -1) {
		s := scenario{records: map[string]string{}, extra: map[string]string{}}
		top := mapping(strings.Split(doc, "\n"))
		for _, test := range pairs(strings.Split(top["tests"], "\n")) {
			fields := mapping(strings.Split(test[1], "\n"))
			fields["name"] = test[0]
			s.tests = append(s.tests, fields)
		}
		for _, r := range pairs(strings.Split(top["txt-records"]+top["txt_records"], "\n")) {
			s.records[r[0]] = r[1]
		}
		for _, k := range []string{"domain", "sel", "privatekey"} {
			s.extra[k] = top[k]
		}
		list = append(list, s)
	}
	return list
}

func mapping(lines []string) map[string]string {
	m := map[string]string{}
	for _, p := range pairs(lines) {
		m[p[0]] = p[1]
	}
	return m
}

// pairs reads keys in the first column with their values: what stands behind the colon, or the lines below, which are
// indented, without that.
func pairs(lines []string) (list [][2]string) {
	for i := 0; i < len(lines); i++ {
		key, rest, ok := strings.Cut(lines[i], ":")
		if !ok || key == "" || key[0] == ' ' || key[0] == '#' {
			continue
		}
		j := i + 1
		for j < len(lines) && (lines[j] == "" || lines[j][0] == ' ') {
			j++
		}
		below := dedent(lines[i+1 : j])
		switch rest = strings.TrimSpace(rest); {
		case rest == "|" || rest == "":
			list = append(list, [2]string{key, strings.Join(below, "\n")})
		case strings.HasPrefix(rest, ">"):
			list = append(list, [2]string{key, strings.TrimSpace(strings.Join(below, " "))})
		default:
			list = append(list, [2]string{key, strings.Trim(rest, `"'`)})
		}
		i = j - 1
	}
	return list
}

func dedent(lines []string) (out []string) {
	indent := -1
	for _, l := range lines {
		if n := len(l) - len(strings.TrimLeft(l, " ")); strings.TrimSpace(l) != "" && (indent < 0 || n < indent) {
			indent = n
		}
	}
	for _, l := range lines {
		out = append(out, l[min(max(indent, 0), len(l)):])
	}
	for len(out) > 0 && strings.TrimSpace(out[len(out)-1]) == "" {
		out = out[:len(out)-1]
	}
	return out
}

// message is a message of the suite as it would be on the wire.
func (s *scenario) message(test map[string]string) string {
	return strings.ReplaceAll(test["message"]+"\n", "\n", "\r\n")
}

func (s *scenario) resolver() *dnstest.Resolver {
	r := &dnstest.Resolver{}
	for name, text := range s.records {
		r.TXT(name, text)
	}
	return r
}

// D11: the whole suite.
func TestD11ARCSuite(t *testing.T) {
	tests := 0
	for _, s := range readSuite(t, "arc-draft-validation-tests.yml") {
		for _, test := range s.tests {
			tests++
			t.Run(test["name"], func(t *testing.T) {
				got, err := Verify(t.Context(), s.resolver(), time.Unix(12345, 0), strings.NewReader(s.message(test)))
				if err != nil {
					t.Fatal(err)
				}
				want := Verdict(strings.ToLower(strings.TrimSpace(test["cv"])))
				if want == "" { // the chain says of itself that it failed, and the suite wants nothing to be said of it
					want = Fail
				}
				if got.ARC.Verdict != want {
					t.Errorf("%s: %q (%s), want %q", test["description"], got.ARC.Verdict, got.ARC.Reason, want)
				}
			})
		}
	}
	if tests != 175 {
		t.Errorf("%d tests were read of 175", tests)
	}
}

// The suite's signatures depend on how their fields are written. What does not is held against ours: which set there is, what
// it says of the chain, and what it hashes. Each seal, theirs and ours, is verified.
func TestD11ARCSigningSuite(t *testing.T) {
	tests := 0
	for _, s := range readSuite(t, "arc-draft-sign-tests.yml") {
		signer, err := parsePEM([]byte(s.extra["privatekey"]))
		if err != nil {
			t.Fatal(err)
		}
		key := &SigningKey{s.extra["domain"], s.extra["sel"], RSA, signer}
		for _, test := range s.tests {
			tests++
			t.Run(test["name"], func(t *testing.T) { s.sign(t, key, test) })
		}
	}
	if tests != 17 {
		t.Errorf("%d tests were read of 17", tests)
	}
}

// folds are the spaces within base64, which the suite has for its readers only.
var folds = regexp.MustCompile(`([A-Za-z0-9+/]{30,}) `)

func (s *scenario) sign(t *testing.T, key *SigningKey, test map[string]string) {
	text := s.message(test)
	seconds, err := strconv.ParseInt(test["t"], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	m, err := readHead(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	e := examine(m.fields)
	if err := m.readBody(append(e.forms(), ours)...); err != nil {
		t.Fatal(err)
	}
	now := time.Unix(seconds, 0)
	before := e.results(t.Context(), s.resolver(), now, m).ARC
	_, results, _ := strings.Cut(test["AAR"], ";")
	names := strings.Split(test["sig-headers"], ":")
	got, err := seal(key, e.chain, before.Verdict, m.fields, names, m.hash(ours).hash.Sum(nil), strings.Join(strings.Fields(results), " "), now)
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(test["AS"]) == "" {
		if got != nil {
			t.Errorf("a set was made:\n%s", got)
		}
		return
	}
	var theirs strings.Builder
	for _, f := range [][2]string{{"ARC-Seal", "AS"}, {"ARC-Message-Signature", "AMS"}, {"ARC-Authentication-Results", "AAR"}} {
		theirs.WriteString(f[0] + ": " + folds.ReplaceAllString(strings.Join(strings.Fields(test[f[1]]), " "), "$1") + "\r\n")
	}
	a, b := s.newest(t, theirs.String()+text, before.Verdict), s.newest(t, string(got)+text, before.Verdict)
	if a.state != b.state || string(a.message.bodyHash) != string(b.message.bodyHash) || !slices.Equal(a.message.names, b.message.names) {
		t.Errorf("seal %s and %s, message %+v and %+v", a.state, b.state, a.message, b.message)
	}
	if a, b := trimField(a.results), trimField(b.results); a != b {
		t.Errorf("results %q and %q", a, b)
	}
}

// newest returns the newest set of a message, after a look at its seal.
func (s *scenario) newest(t *testing.T, text string, before Verdict) *arcSet {
	t.Helper()
	got, err := Verify(t.Context(), s.resolver(), time.Unix(12345, 0), strings.NewReader(text))
	want := Pass
	if before == Fail {
		want = Fail
	}
	if err != nil || got.ARC.Verdict != want {
		t.Fatalf("%v, %+v, want %s:\n%s", err, got.ARC, want, text)
	}
	fields, err := readHeader(bufio.NewReader(strings.NewReader(text)))
	if err != nil {
		t.Fatal(err)
	}
	c := &chain{}
	sets := map[int]*arcSet{}
	for i := range fields {
		c.take(sets, &fields[i])
	}
	newest := sets[c.highest]
	if before != Fail {
		return newest
	}
	// A seal of a chain that has failed is over its own set alone.
	record, err := lookupKey(t.Context(), s.resolver(), newest.seal.Selector, newest.seal.Domain)
	if err != nil || check(record, newest.seal, sealDigest([]arcSet{*newest})) != nil {
		t.Errorf("the seal of a failed chain is not over its own set:\n%s", text)
	}
	return newest
}
