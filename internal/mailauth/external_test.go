package mailauth

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// dkimpy reads messages and the records of the DNS, and writes what Debian's python3-dkim finds of each.
const dkimpy = `
import json, sys, dkim
said = json.load(sys.stdin)
def txt(name, timeout=5):
    name = name.decode() if isinstance(name, bytes) else name
    return said["Records"].get(name.rstrip(".").lower(), "").encode()
def good(m, i):
    try:
        return dkim.DKIM(m).verify(idx=i, dnsfunc=txt)
    except dkim.DKIMException:
        return False
out = []
for text in said["Messages"]:
    m = text.encode()
    n = text.lower().split("\r\n\r\n")[0].count("dkim-signature:")
    found = ["pass" if good(m, i) else "fail" for i in range(n)]
    cv, _, reason = dkim.arc_verify(m, dnsfunc=txt)
    out.append({"DKIM": found, "ARC": cv.decode() if cv else "none", "Reason": str(reason)})
json.dump(out, sys.stdout)
`

// python returns a Python that has dkimpy, and PyNaCl for Ed25519.
func python(t *testing.T) string {
	t.Helper()
	for _, name := range []string{"python3", "/usr/bin/python3"} {
		if exec.Command(name, "-c", "import dkim, nacl").Run() == nil {
			return name
		}
	}
	t.Skip("python3-dkim and python3-nacl are not installed")
	return ""
}

// Another program finds of our signatures and seals what we find.
func TestDkimpyVerifies(t *testing.T) {
	name := python(t)
	f := open(t)
	said := struct {
		Records  map[string]string
		Messages []string
	}{Records: map[string]string{}}
	for _, k := range f.activeKeys("example.test") {
		said.Records[k.Name()] = k.Record()
	}
	signed := f.sign(Outbound{Own: true}, plain)
	once := f.forwarded(fromAfar)
	twice := f.forwarded("Received: from elsewhere\r\n" + once)
	mime := f.sign(Outbound{Own: true}, crlf("MIME-Version: 1.0", "From: ann@example.test", "To: a@far.test,", "\tb@far.test",
		"Subject:\t =?utf-8?q?Gr=C3=BC=C3=9Fe?=  ", "Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit",
		"References: <a@b>", " <c@d>", "", "Grüße \t ", ".", "..", strings.Repeat("lang ", 500), "", ""))
	said.Messages = []string{
		signed, strings.Replace(signed, "bye", "buy", 1), once, twice, strings.Replace(twice, "bye", "buy", 1),
		"Subject: another\r\n" + signed, mime,
	}
	want := []string{"pass pass none", "fail fail none", "pass", "pass", "fail", "fail fail none", "pass pass none"}

	input, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(name, "-c", dkimpy)
	var stderr bytes.Buffer
	cmd.Stdin, cmd.Stderr = bytes.NewReader(input), &stderr
	output, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, &stderr)
	}
	var found []struct {
		DKIM        []string
		ARC, Reason string
	}
	if err := json.Unmarshal(output, &found); err != nil {
		t.Fatal(err)
	}
	for i, x := range found {
		if got := strings.TrimSpace(strings.Join(append(x.DKIM, x.ARC), " ")); got != want[i] {
			t.Errorf("message %d: %s, want %s (%s)\n%s", i, got, want[i], x.Reason, said.Messages[i])
		}
	}
}
