package postroad

import (
	"bufio"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// plan is what docs/architecture.md says: of each package of ours, which others it may
// import, and of each module, which packages use it. "all" and "tests" stand as they are.
type plan struct{ packages, modules map[string][]string }

// readPlan reads the tables, whose rows begin with a name in backquotes.
func readPlan(t *testing.T) plan {
	t.Helper()
	text, err := os.ReadFile("docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	p := plan{map[string][]string{}, map[string][]string{}}
	table := p.packages
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "## Libraries") {
			table = p.modules
		}
		cells := strings.Split(line, "|")
		if len(cells) != 5 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		table[strings.Trim(cells[1], " `")] = strings.Fields(strings.TrimSuffix(cells[3], "- "))
	}
	return p
}

// Packages import what the plan allows.
func TestImports(t *testing.T) {
	p := readPlan(t)
	unused := maps.Clone(p.packages)
	err := filepath.WalkDir(".", func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && strings.HasPrefix(d.Name(), ".") && file != "." {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(file, ".go") {
			return nil
		}
		pkg := path.Dir(filepath.ToSlash(file))
		delete(unused, pkg)
		for _, imported := range importsOf(t, file) {
			p.check(t, pkg, imported, strings.HasSuffix(file, "_test.go"))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for pkg := range unused {
		t.Errorf("the plan has a package %s, which is not there", pkg)
	}
}

func importsOf(t *testing.T, file string) (list []string) {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range parsed.Imports {
		name, _ := strconv.Unquote(spec.Path.Value)
		list = append(list, name)
	}
	return list
}

// check holds one import against the plan. Tests may import all of ours, and all modules.
func (p plan) check(t *testing.T, pkg, imported string, test bool) {
	t.Helper()
	if _, ok := p.packages[pkg]; !ok {
		t.Errorf("%s is not in the plan", pkg)
	}
	if test {
		return
	}
	if ours, ok := strings.CutPrefix(imported, "postroad"); ok {
		allowed := p.packages[pkg]
		if !slices.Contains(allowed, path.Clean("./"+ours)) && !slices.Contains(allowed, "all") {
			t.Errorf("%s imports %s, which the plan does not allow", pkg, imported)
		}
		return
	}
	for module, users := range p.modules {
		if (imported == module || strings.HasPrefix(imported, module+"/")) && !slices.Contains(users, pkg) {
			t.Errorf("%s imports %s, which is for %v", pkg, imported, users)
		}
	}
}

// Each module that go.mod requires has its reason in the plan, and no other has one.
func TestModulesHaveReasons(t *testing.T) {
	mod, err := os.Open("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	defer mod.Close()
	planned := readPlan(t).modules
	for lines := bufio.NewScanner(mod); lines.Scan(); {
		line := lines.Text()
		if !strings.HasPrefix(line, "\t") || strings.HasSuffix(line, "// indirect") {
			continue
		}
		module := strings.Fields(line)[0]
		if _, ok := planned[module]; !ok {
			t.Errorf("%s is required without a reason in docs/architecture.md", module)
		}
		delete(planned, module)
	}
	for module := range planned {
		t.Errorf("docs/architecture.md has %s, which go.mod does not require", module)
	}
}
