// Package pagetest holds pages of the documentation against the code that they speak of.
package pagetest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// Sources calls fn with every Go file of the module, whose directory is root: with the package's directory as the module
// sees it ("postroad" for its own), and the file's name.
func Sources(t testing.TB, root string, mode parser.Mode, fn func(dir, file string, parsed *ast.File)) {
	t.Helper()
	err := filepath.WalkDir(root, func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != root {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		dir, err := filepath.Rel(root, filepath.Dir(file))
		if err != nil {
			return err
		}
		if dir == "." {
			dir = "postroad"
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, mode)
		if err == nil {
			fn(filepath.ToSlash(dir), filepath.Base(file), parsed)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Tests are the functions of all test files of the module at root, as "package.Name": tests and fuzz targets among them.
func Tests(t testing.TB, root string) map[string]bool {
	t.Helper()
	tests := map[string]bool{}
	Sources(t, root, parser.SkipObjectResolution, func(dir, file string, parsed *ast.File) {
		if !strings.HasSuffix(file, "_test.go") {
			return
		}
		for _, decl := range parsed.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok && f.Recv == nil {
				tests[dir+"."+f.Name.Name] = true
			}
		}
	})
	return tests
}

var quoted = regexp.MustCompile("`[^`]+`")

// Conformance holds a page's tables of four columns against what a server announces: each name in the first column
// is announced and the other way round, and the last column names dialogs (in testdata/dialog) and tests of the package
// pkg of the module at root, which exist.
func Conformance(t testing.TB, root, pkg, page string, announced map[string]bool) {
	t.Helper()
	rows := tables(t, filepath.Join(root, page))
	for name := range announced {
		if _, ok := rows[name]; !ok {
			t.Errorf("%s is announced and has no row in %s", name, page)
		}
	}
	tests := Tests(t, root)
	for name, shown := range rows {
		if !announced[name] {
			t.Errorf("%s has a row and is not announced", name)
		}
		if len(shown) == 0 {
			t.Errorf("nothing shows %s", name)
		}
		for _, s := range shown {
			if s = strings.Trim(s, "`"); !tests[pkg+"."+s] && !isDialog(s) {
				t.Errorf("%s is shown by %s, which does not exist", name, s)
			}
		}
	}
}

func isDialog(name string) bool {
	_, err := os.Stat(filepath.Join("testdata", "dialog", filepath.FromSlash(name)))
	return err == nil && strings.HasSuffix(name, ".txt")
}

// tables are the rows of a page that have four cells: by the first one, what the last one quotes.
func tables(t testing.TB, page string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	head := true // the next row is a table's first
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		name := strings.TrimSpace(cells[0])
		if len(cells) != 4 {
			head = true
			continue
		}
		if head || strings.HasPrefix(name, "--") {
			head = false
			continue
		}
		if _, twice := rows[name]; twice {
			t.Errorf("%s has two rows", name)
		}
		rows[name] = quoted.FindAllString(cells[3], -1)
	}
	return rows
}
