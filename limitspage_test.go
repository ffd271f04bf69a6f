package postroad

import (
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"os"
	"path"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"postroad/imapd"
	"postroad/internal/config"
	"postroad/internal/gate"
	"postroad/internal/pagetest"
	"postroad/smtpd"
)

// The page of limits and the code say the same: each limit of a table in the code has its row, with the default that it
// and its key have, and the tests that a row names exist.
func TestLimitsPage(t *testing.T) {
	text, err := os.ReadFile("docs/limits.md")
	if err != nil {
		t.Fatal(err)
	}
	code := readCode(t)
	want := limitFields()
	keys := configDefaults(t)
	rows := map[string]bool{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, "|")
		if len(cells) != 8 || !strings.HasPrefix(cells[1], " `") {
			continue
		}
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		name, key, value := strings.Trim(cells[1], "`"), strings.Trim(cells[2], "`"), cells[3]
		if rows[name] {
			t.Errorf("%s has two rows", name)
		}
		rows[name] = true
		is, ok := want[name]
		if !ok {
			is, ok = code.constants[name]
		}
		if !ok || is != value {
			t.Errorf("%s is %q on the page and %q in the code", name, value, is)
		}
		if key != "-" && keys[key] != value {
			t.Errorf("%s is %q on the page and %q in the config", key, value, keys[key])
		}
		if cells[5] == "" || cells[4] == "" {
			t.Errorf("%s: what is counted, and what comes beyond it?", name)
		}
		pkg, _, _ := strings.Cut(strings.TrimSuffix(name, path.Ext(name)), ".")
		code.checkTests(t, name, pkg, cells[6])
	}
	for name := range want {
		if !rows[name] {
			t.Errorf("%s has no row", name)
		}
	}
}

// limitFields are the defaults of all fields of the tables of limits.
func limitFields() map[string]string {
	daily := config.Default().Submission
	fields := map[string]string{
		"internal/account.Allowance.Messages":   grouped(daily.DailyMessages),
		"internal/account.Allowance.Recipients": grouped(daily.DailyRecipients),
		"internal/account.Allowance.New":        grouped(daily.DailyNew),
	}
	for name, limits := range map[string]any{
		"smtpd.Limits":         smtpd.Limits{}.WithDefaults(),
		"imapd.Limits":         imapd.Limits{}.WithDefaults(),
		"internal/gate.Limits": gate.Limits{}.WithDefaults(),
	} {
		v := reflect.ValueOf(limits)
		for i := range v.NumField() {
			fields[name+"."+v.Type().Field(i).Name] = written(v.Field(i).Interface())
		}
	}
	return fields
}

// written is a value as the page has it.
func written(v any) string {
	switch v := v.(type) {
	case time.Duration:
		return config.Duration(v).String()
	case int64:
		return config.Size(v).String()
	case int:
		return grouped(v)
	}
	return ""
}

// grouped writes 1000 as 1,000.
func grouped(n int) string {
	s := strconv.Itoa(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// configDefaults are the defaults of the keys, as the page has them.
func configDefaults(t *testing.T) map[string]string {
	t.Helper()
	values, err := config.Default().Values()
	if err != nil {
		t.Fatal(err)
	}
	keys := map[string]string{}
	for table, v := range values {
		of, _ := v.(map[string]any)
		for key, v := range of {
			switch v := v.(type) {
			case int64:
				keys[table+"."+key] = grouped(int(v))
			case string:
				keys[table+"."+key] = v
			}
		}
	}
	return keys
}

// code is what the sources have: constants with their values, and tests.
type code struct {
	constants map[string]string // by "package.name"
	tests     map[string]bool
}

func readCode(t *testing.T) code {
	t.Helper()
	c := code{map[string]string{}, map[string]bool{}}
	pagetest.Sources(t, ".", parser.SkipObjectResolution, func(dir, _ string, parsed *ast.File) {
		for _, decl := range parsed.Decls {
			c.read(dir, decl)
		}
	})
	return c
}

func (c code) read(dir string, decl ast.Decl) {
	switch d := decl.(type) {
	case *ast.FuncDecl:
		c.tests[dir+"."+d.Name.Name] = true
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			v, ok := spec.(*ast.ValueSpec)
			if !ok || d.Tok != token.CONST || len(v.Values) != len(v.Names) {
				continue
			}
			for i, name := range v.Names {
				if n, timed := evaluate(v.Values[i]); n != nil {
					c.constants[dir+"."+name.Name] = writtenConstant(n, timed)
				}
			}
		}
	}
}

func writtenConstant(n constant.Value, timed bool) string {
	v, _ := constant.Int64Val(n)
	if timed {
		return written(time.Duration(v))
	}
	return grouped(int(v))
}

var units = map[string]time.Duration{
	"Millisecond": time.Millisecond, "Second": time.Second, "Minute": time.Minute, "Hour": time.Hour,
}

// evaluate is the value of an expression of numbers and units of time; nil of any other.
func evaluate(e ast.Expr) (n constant.Value, timed bool) {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.INT {
			return constant.MakeFromLiteral(e.Value, e.Kind, 0), false
		}
	case *ast.SelectorExpr:
		if unit, ok := units[e.Sel.Name]; ok {
			return constant.MakeInt64(int64(unit)), true
		}
	case *ast.BinaryExpr:
		x, timedX := evaluate(e.X)
		y, timedY := evaluate(e.Y)
		switch {
		case x == nil || y == nil:
		case e.Op == token.SHL:
			by, _ := constant.Uint64Val(y)
			return constant.Shift(x, token.SHL, uint(by)), false
		case e.Op == token.MUL || e.Op == token.ADD || e.Op == token.SUB:
			return constant.BinaryOp(x, e.Op, y), timedX || timedY
		}
	}
	return nil, false
}

var namedTest = regexp.MustCompile("`(?:([a-z/]+)\\.)?((?:Test|Fuzz)[A-Za-z0-9]+)`")

// checkTests holds the tests that a row names, those without a package in that of the limit.
func (c code) checkTests(t *testing.T, name, pkg, cell string) {
	t.Helper()
	named := namedTest.FindAllStringSubmatch(cell, -1)
	if len(named) == 0 {
		t.Errorf("%s: no test shows it", name)
	}
	for _, m := range named {
		in := m[1]
		if in == "" {
			in = pkg
		}
		if !c.tests[in+"."+m[2]] {
			t.Errorf("%s: there is no test %s in %s", name, m[2], in)
		}
	}
}
