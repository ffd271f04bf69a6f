package wire

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"postroad/internal/envelope"
)

func TestPath(t *testing.T) {
	tests := []struct{ name, arg, path, params string }{
		{"plain", "FROM:<a@b.test>", "<a@b.test>", ""},
		{"null", "FROM:<>", "<>", ""},
		{"lower case", "from:<a@b.test>", "<a@b.test>", ""},
		{"space after the colon", "FROM: <a@b.test>", "<a@b.test>", ""},
		{"without brackets", "FROM:a@b.test", "a@b.test", ""},
		{"without brackets, with parameters", "FROM: a@b.test SIZE=1", "a@b.test", "SIZE=1"},
		{"quoted without brackets", `FROM:"a b>"@b.test SIZE=1`, `"a b>"@b.test`, "SIZE=1"},
		{"> in quotes", `FROM:<"a>b"@c.test> SIZE=1`, `<"a>b"@c.test>`, "SIZE=1"},
		{"space in quotes", `FROM:<"a b"@c.test>`, `<"a b"@c.test>`, ""},
		{"escaped quote", `FROM:<"a\"> b"@c.test>`, `<"a\"> b"@c.test>`, ""},
		{"escaped backslash", `FROM:<"a\\"@c.test> X`, `<"a\\"@c.test>`, "X"},
		{"source route", "FROM:<@one.test,@two.test:a@b.test>", "<@one.test,@two.test:a@b.test>", ""},
		{"quotes behind a source route", `FROM:<@one.test:"a>b"@b.test>`, `<@one.test:"a>b"@b.test>`, ""},
		{"address literal", "FROM:<a@[IPv6:::1]>", "<a@[IPv6:::1]>", ""},
		{"UTF-8", "FROM:<\u00fc@b.test> SMTPUTF8", "<\u00fc@b.test>", "SMTPUTF8"},
		{"what is no address is for another to tell", "FROM:<a b>", "<a b>", ""},
		{"parameters", "FROM:<> SIZE=10 BODY=8BITMIME smtputf8 Ret=hdrs", "<>", "SIZE=10 BODY=8BITMIME SMTPUTF8 RET=hdrs"},
		{"spaces", "FROM:<>   SIZE=10   X  ", "<>", "SIZE=10 X"},
		{"all of a value", "FROM:<> X=!\"#$%&'()*+,-./:;<>?@[\\]^_`{|}~", "<>", "X=!\"#$%&'()*+,-./:;<>?@[\\]^_`{|}~"},
		{"UTF-8 in a value", "FROM:<> X=\u00fc", "<>", "X=\u00fc"},
		{"hyphens and digits", "FROM:<> X-1-=2 3D", "<>", "X-1-=2 3D"},
		{"xtext", "FROM:<> AUTH=a+3Db@c.test ENVID=+0D", "<>", "AUTH=a+3Db@c.test ENVID=+0D"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			path, params, err := Path(test.arg, "FROM:")
			if path != test.path || written(params) != test.params || err != nil {
				t.Errorf("got %q, %q, %v", path, written(params), err)
			}
		})
	}
}

func written(params []Param) string {
	var words []string
	for _, p := range params {
		word := p.Keyword
		if p.HasValue {
			word += "=" + p.Value
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

func TestPathRefused(t *testing.T) {
	var many strings.Builder
	for i := range maxParams + 1 {
		fmt.Fprintf(&many, " X%d", i)
	}
	tests := map[string]string{
		"no argument":             "",
		"no prefix":               "<a@b.test>",
		"another prefix":          "TO:<a@b.test>",
		"a prefix in pieces":      "FROM :<a@b.test>",
		"half a prefix":           "FRO",
		"no path":                 "FROM:",
		"no path but a space":     "FROM: ",
		"no end":                  "FROM:<a@b.test",
		"no end, parameters":      "FROM:<a@b.test SIZE=1",
		"a glued parameter":       "FROM:<a@b.test>SIZE=1",
		"a glued word":            "FROM:<a@b.test>x",
		"two paths":               "FROM:<a@b.test><c@d.test>",
		"two ends":                "FROM:<a@b.test>>",
		"a domain behind":         "FROM:<a@b.test>@c.test",
		"a tab behind":            "FROM:<a@b.test>\tSIZE=1",
		"a comment behind":        "FROM:<a@b.test>(x)",
		"> and no <":              "FROM:a@b.test>",
		"< within":                "FROM:a<a@b.test>",
		"< and no >":              "FROM:a<b@c.test",
		"a name before":           "FROM:A Person <a@b.test>",
		"a quoted name before":    `FROM:"A" <a@b.test>`,
		"a quote that stays open": `FROM:<"a@b.test>`,
		"an escape that is open":  `FROM:<"a\"@b.test>`,
		"a lone backslash":        `FROM:<"a\`,
		"quotes hide the end":     `FROM:<a"@b.test> SIZE=1`,
		"open without brackets":   `FROM:"a@b.test`,
		"twice":                   "FROM:<> SIZE=1 SIZE=2",
		"twice in other case":     "FROM:<> SIZE=1 BODY=7BIT size=1",
		"twice without a value":   "FROM:<> SMTPUTF8 SMTPUTF8",
		"an empty value":          "FROM:<> SIZE=",
		"no keyword":              "FROM:<> =1",
		"two =":                   "FROM:<> SIZE=1=2",
		"a hyphen first":          "FROM:<> -X=1",
		"a bad keyword":           "FROM:<> S_IZE=1",
		"a keyword in UTF-8":      "FROM:<> \u00fc=1",
		"a tab between":           "FROM:<> SIZE=1\tX",
		"a control":               "FROM:<> X=\x01",
		"DEL":                     "FROM:<> X=\x7f",
		"a control in UTF-8":      "FROM:<> X=\u0085",
		"no UTF-8":                "FROM:<> X=\xff",
		"too many parameters":     "FROM:<>" + many.String(),
	}
	for name, arg := range tests {
		t.Run(name, func(t *testing.T) {
			path, params, err := Path(arg, "FROM:")
			refusal, ok := errors.AsType[*Reply](err)
			if !ok || refusal.Code != 501 || refusal.Enhanced != "5.5.4" || path != "" || params != nil {
				t.Errorf("got %q, %v, %v", path, params, err)
			}
		})
	}
}

// What is taken for a path is the argument's beginning, whole, and what it means is what its brackets enclose.
func FuzzPath(f *testing.F) {
	for _, s := range []string{
		"<a@b.test> SIZE=1", `<"a>b\""@c.test> X`, "a@b.test SMTPUTF8", "<@x.test:a@b.test>", "<a@b.test>SIZE=1", `"a b"@c.test A B=\u00fc`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		path, params, err := Path("TO:"+s, "TO:")
		if err != nil {
			if _, ok := errors.AsType[*Reply](err); !ok {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		rest, ok := strings.CutPrefix(strings.TrimLeft(s, " "), path)
		if !ok || path == "" || rest != "" && rest[0] != ' ' {
			t.Fatalf("%q: path %q", s, path)
		}
		if words := strings.Join(strings.FieldsFunc(rest, func(r rune) bool { return r == ' ' }), " "); !strings.EqualFold(words, written(params)) {
			t.Fatalf("%q: %q is not %q", s, written(params), words)
		}
		for i, p := range params {
			if has(params[:i], p.Keyword) || strings.ToUpper(p.Keyword) != p.Keyword || !isKeyword(p.Keyword) {
				t.Fatalf("%q: keyword %q", s, p.Keyword)
			}
			if strings.ContainsAny(p.Value, "= \r\n\t\x00") || !utf8.ValidString(p.Value) || p.HasValue != (p.Value != "") {
				t.Fatalf("%q: value %q", s, p.Value)
			}
		}
		// A second reading of the same path ends where the first did.
		if address, err := envelope.ParsePath(path); err == nil && !address.IsZero() && address.Domain != "" {
			if again, _, err := Path("TO:"+address.Path()+" X=1", "TO:"); err != nil || again != address.Path() {
				t.Fatalf("%q: %q is read again as %q, %v", s, address.Path(), again, err)
			}
		}
	})
}
