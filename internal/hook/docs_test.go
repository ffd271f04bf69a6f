package hook

import (
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// The example of the page verifies what we sign, and nothing else.
func TestDocumentedVerification(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("there is no Python here")
	}
	page, err := os.ReadFile("../../docs/delivery.md")
	if err != nil {
		t.Fatal(err)
	}
	_, code, _ := strings.Cut(string(page), "```python\n")
	code, _, ok := strings.Cut(code, "```")
	if !ok {
		t.Fatal("the page has no example")
	}
	secret := "0123456789abcdef"
	key, err := ParseKey(secret)
	if err != nil {
		t.Fatal(err)
	}
	for _, envelope := range []string{"", `{"to":["a@b.test"]}`} {
		req := request("", "a body\r\n")
		req.Key, req.Envelope = key, envelope
		header := http.Header{}
		if err := New(Config{Now: time.Now}).sign(header, req); err != nil {
			t.Fatal(err)
		}
		dict := "{"
		for name := range header {
			dict += `"` + name + `": '` + header.Get(name) + `', `
		}
		if envelope != "" {
			dict += `"Postroad-Envelope": '` + envelope + `', `
		}
		dict += "}"
		run := code + "\nh = " + dict + `
assert is_ours(b"` + secret + `", h, b"a body\r\n")
assert not is_ours(b"` + secret + `", h, b"another body\r\n")
assert not is_ours(b"fedcba9876543210", h, b"a body\r\n")
assert not is_ours(b"` + secret + `", h | {"Webhook-Id": "x"}, b"a body\r\n")
assert not is_ours(b"` + secret + `", h | {"Webhook-Timestamp": str(int(h["Webhook-Timestamp"]) - 1000)}, b"a body\r\n")
`
		if out, err := exec.Command(python, "-c", run).CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
}
