package smtpd_test

import (
	"go/ast"
	"go/parser"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"postroad/internal/pagetest"
)

// TestAttacksPage holds docs/attacks.md against the sources: what it names exists, every case has one row, and a test
// that is named for a case stands in the row of that case.
func TestAttacksPage(t *testing.T) {
	text, err := os.ReadFile("../docs/attacks.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := pagetest.Tests(t, "..")
	named := regexp.MustCompile("`([a-z/]*\\.)?((?:Test|Fuzz)[A-Za-z0-9]+)`")
	rows := map[string]string{}
	for line := range strings.Lines(string(text)) {
		for _, m := range named.FindAllStringSubmatch(line, -1) {
			pkg := path.Clean(strings.TrimSuffix(m[1], "."))
			if pkg == "." {
				pkg = "smtpd"
			}
			if !tests[pkg+"."+m[2]] {
				t.Errorf("the page names %s.%s, which is not there", pkg, m[2])
			}
		}
		if cells := strings.Split(line, "|"); len(cells) == 6 && regexp.MustCompile(`^ [A-E][0-9]{2} $`).MatchString(cells[1]) {
			id := strings.TrimSpace(cells[1])
			if rows[id] != "" {
				t.Errorf("%s has two rows", id)
			}
			rows[id] = cells[4]
		}
	}
	for letter, last := range map[string]int{"A": 17, "B": 11, "C": 13, "E": 8} {
		for n := range last {
			if id := letter + twoDigits(n+1); rows[id] == "" {
				t.Errorf("%s has no row", id)
			}
		}
	}
	forCase := regexp.MustCompile(`^.*\.Test([A-E][0-9]{2})[A-Z][A-Za-z]+$`)
	for name := range tests {
		if m := forCase.FindStringSubmatch(name); m != nil && !strings.Contains(rows[m[1]], strings.TrimPrefix(name, "smtpd.")+"`") {
			t.Errorf("%s is not in the row of %s", name, m[1])
		}
	}
}

func twoDigits(n int) string { return string([]byte{'0' + byte(n/10), '0' + byte(n%10)}) }

// TestC07NoProcesses: nothing that mail can reach is able to start another program.
func TestC07NoProcesses(t *testing.T) {
	pagetest.Sources(t, "..", parser.ImportsOnly, func(dir, file string, parsed *ast.File) {
		command := dir == "cmd/postroad" && file == "quickstart.go" || dir == "internal/bench" // which is no part of the server
		if strings.HasSuffix(file, "_test.go") || strings.HasSuffix(dir, "test") || command {
			return
		}
		for _, spec := range parsed.Imports {
			if name, _ := strconv.Unquote(spec.Path.Value); name == "os/exec" || name == "plugin" || name == "C" {
				t.Errorf("%s/%s imports %s", dir, file, name)
			}
		}
	})
}
