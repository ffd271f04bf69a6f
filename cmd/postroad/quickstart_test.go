package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"postroad"
	"postroad/internal/config"
)

// What quickstart prints about looking after the server works in any directory, and
// without postroad being installed.
func TestQuickstartNamesACommandThatWorks(t *testing.T) {
	cfg := config.Default()
	cfg.DataDir = t.TempDir()
	for _, addr := range []*config.Addr{&cfg.Listen.SMTP, &cfg.Listen.Submission, &cfg.Listen.Submissions, &cfg.Listen.IMAP, &cfg.Listen.IMAPS} {
		*addr = config.Off
	}
	srv, accounts, err := postroad.OpenQuickstart(postroad.QuickstartOptions{Config: cfg})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	t.Setenv("PATH", t.TempDir())
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	showReady(&out, cfg, srv, accounts)
	if want := quoted(self) + " --dir " + quoted(cfg.DataDir) + " status\n"; !strings.Contains(out.String(), want) {
		t.Errorf("no %q in:\n%s", want, &out)
	}
	if strings.Contains(out.String(), "curl") {
		t.Errorf("there is no listener for curl:\n%s", &out)
	}
}
