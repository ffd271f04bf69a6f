package postroad

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"postroad/internal/pagetest"
)

// Each table of the store belongs to one package: two that write the same keys would read each other's records.
func TestTablesHaveOneOwner(t *testing.T) {
	owners := map[string]map[string]bool{}
	pagetest.Sources(t, ".", parser.SkipObjectResolution, func(dir, file string, parsed *ast.File) {
		if strings.HasSuffix(file, "_test.go") {
			return
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			for _, table := range tablesIn(n) {
				if owners[table] == nil {
					owners[table] = map[string]bool{}
				}
				owners[table][dir] = true
			}
			return true
		})
	})
	for table, dirs := range owners {
		if len(dirs) > 1 {
			t.Errorf("table %q is in %q", table, slices.Sorted(maps.Keys(dirs)))
		}
	}
	if len(owners) < 20 {
		t.Errorf("only %d tables were found", len(owners))
	}
}

// tablesIn are the tables that a constant or a call of NewKey names.
func tablesIn(n ast.Node) (tables []string) {
	add := func(e ast.Expr) {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && len(s) == 2 {
				tables = append(tables, s)
			}
		}
	}
	switch n := n.(type) {
	case *ast.ValueSpec:
		for i, name := range n.Names {
			if i < len(n.Values) && strings.HasPrefix(name.Name, "table") {
				add(n.Values[i])
			}
		}
	case *ast.CallExpr:
		if name := callee(n.Fun); name == "NewKey" && len(n.Args) == 1 {
			add(n.Args[0])
		}
	}
	return tables
}

func callee(fun ast.Expr) string {
	switch f := fun.(type) {
	case *ast.Ident:
		return f.Name
	case *ast.SelectorExpr:
		return f.Sel.Name
	}
	return ""
}
