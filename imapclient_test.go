package postroad_test

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"postroad"
)

// Python's IMAPClient parses every item of every message, and Python's email package agrees with ENVELOPE and BODYSTRUCTURE
// of all messages that it finds no fault with.
func TestClientIMAPClient(t *testing.T) {
	if testing.Short() {
		t.Skip("fetches every message of the corpus with a client in Python")
	}
	if err := exec.Command("python3", "-c", "import imapclient").Run(); err != nil {
		t.Skip("Python's imapclient is not installed")
	}
	ann := postroad.Credential{Address: "ann@one.test", Password: "a-password"}
	s := embed(t, testConfig(t, "mx.one.test"), postroad.Options{}, ann)
	c := dialTree(t, s, ann)
	c.must(t, "CREATE corpus")
	files := corpus(t)
	for _, file := range files {
		c.must(t, "APPEND corpus {}", asSent(t, file))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "python3", "testdata/clients/corpus.py", port(s.Addr("imap")), ann.Address, ann.Password, "corpus").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	if last := lines[len(lines)-1]; last != fmt.Sprint("ok ", len(files)) {
		t.Errorf("the script ended with %s", last)
	}
	for _, line := range lines[:len(lines)-1] {
		var n int
		fmt.Sscanf(line, "message %d:", &n)
		if n > 0 && n <= len(files) {
			line = files[n-1] + ": " + line
		}
		t.Error(line)
	}
}
