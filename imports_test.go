package postroad

import (
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// mayImport is the house's plan: which of our packages each package may use. A
// protocol never knows another, and what is stored knows no protocol.
var mayImport = map[string]string{
	"internal/envelope":          "",
	"internal/listen":            "",
	"internal/listen/listentest": "",
	"internal/store":             "",
	"internal/store/storetest":   "internal/store",
	"internal/mime":              "",
	"internal/dns":               "internal/envelope", // one rule for what a domain name is
	"internal/dns/dnstest":       "internal/dns",
	"internal/dsn":               "internal/envelope",
	"internal/config":            "",
	"internal/control":           "",
	"internal/mbox":              "",
	"internal/bench":             "",
	"internal/trace":             "internal/store",
	"internal/account":           "internal/store internal/envelope",
	"internal/mailbox":           "internal/store internal/mime",
	"spool":                      "internal/store internal/envelope internal/trace",
	"smtpd":                      "spool internal/store internal/account internal/envelope internal/listen",
	"delivery/smtpc":             "internal/envelope",
	"delivery":                   "delivery/smtpc spool internal/store internal/mailbox internal/account internal/envelope internal/mime internal/dns internal/dsn internal/trace",
	"imapd":                      "internal/mailbox internal/mime internal/store internal/account internal/listen internal/trace",
	"cmd/postroad":               ". internal/config internal/control internal/bench internal/mbox",
	".":                          "*", // puts it together
}

// protocolLibraries are for the packages that speak to peers, and for composing.
var protocolLibraries = map[string]string{
	"github.com/emersion/go-smtp":    "smtpd delivery",
	"github.com/emersion/go-imap/v2": "imapd",
	"github.com/emersion/go-sasl":    "smtpd delivery imapd",
	"go.etcd.io/bbolt":               "internal/store",
}

func TestImports(t *testing.T) {
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != "." {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range parsed.Imports {
			name, _ := strconv.Unquote(spec.Path.Value)
			checkImport(t, path.Dir(filepath.ToSlash(file)), name)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func checkImport(t *testing.T, pkg, imported string) {
	t.Helper()
	for library, users := range protocolLibraries {
		if (imported == library || strings.HasPrefix(imported, library+"/")) && !slices.Contains(strings.Fields(users), pkg) {
			t.Errorf("%s imports %s, which is for %s", pkg, imported, users)
		}
	}
	ours, ok := strings.CutPrefix(imported, "postroad")
	if !ok {
		return
	}
	ours = strings.TrimPrefix(ours, "/")
	if ours == "" {
		ours = "."
	}
	allowed, known := mayImport[pkg]
	if !known {
		t.Errorf("%s has no line in the plan of imports", pkg)
	}
	if allowed != "*" && !slices.Contains(strings.Fields(allowed), ours) {
		t.Errorf("%s imports %s, which the plan does not allow", pkg, ours)
	}
}
