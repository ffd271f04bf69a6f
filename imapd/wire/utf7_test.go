package wire

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestUTF7(t *testing.T) {
	for name, wire := range map[string]string{
		"": "", "INBOX": "INBOX", "a b~": "a b~", "&": "&-", "R&D": "R&-D", "&&": "&-&-",
		"é": "&AOk-", "é&": "&AOk-&-", "&é": "&-&AOk-", "été": "&AOk-t&AOk-",
		"台北": "&U,BTFw-", "日本語": "&ZeVnLIqe-", "~peter/mail/台北/日本語": "~peter/mail/&U,BTFw-/&ZeVnLIqe-",
		"Entwürfe": "Entw&APw-rfe", "💩": "&2D3cqQ-", "a\tb": "a&AAk-b", "\x7f": "&AH8-",
	} {
		if got := EncodeUTF7(name); got != wire {
			t.Errorf("encode %q: %q, want %q", name, got, wire)
		}
		if got, err := DecodeUTF7(wire); err != nil || got != name {
			t.Errorf("decode %q: %q, %v; want %q", wire, got, err, name)
		}
	}
}

// Each of these would be a second way to write a name, or none.
func TestUTF7NotCanonical(t *testing.T) {
	for wire, why := range map[string]string{
		"&":              "does not end",
		"a&AOk":          "does not end",
		"&AGE-":          "ASCII in base64",
		"&AOkAYQ-":       "ASCII in base64",
		"&ACY-":          "ampersand in base64",
		"&AOk-&AOk-":     "base64 after base64",
		"&AOl-":          "padding bits",
		"&AOk=-":         "padding",
		"&A-":            "half an octet",
		"&AO-":           "half a unit",
		"&AOkA-":         "half a unit",
		"&2D0-":          "high surrogate alone",
		"&3Kk-":          "low surrogate alone",
		"&3KnYPQ-":       "surrogates the wrong way round",
		"&//0-":          "slash instead of comma",
		"&,,0-":          "the replacement character, which stands for an error",
		"&AO k-":         "a space in base64",
		"a\tb":           "a control as itself",
		"\x7f":           "a control as itself",
		"é":              "UTF-8",
		"\xff":           "no encoding at all",
		"&AOk-\r\n":      "a line end",
		"&U,BTFw-&ZeVn-": "base64 after base64",
	} {
		if got, err := DecodeUTF7(wire); err == nil {
			t.Errorf("%q (%s) was read as %q", wire, why, got)
		}
	}
}

func FuzzUTF7(f *testing.F) {
	for _, s := range []string{"", "&", "&-", "&AOk-", "&AGE-", "a&U,BTFw-/&ZeVnLIqe-", "&2D3cqQ-", "&2D0-", "é", "R&D"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if name, err := DecodeUTF7(s); err == nil {
			if back := EncodeUTF7(name); back != s {
				t.Errorf("%q is read as %q, which is %q", s, name, back)
			}
			if !utf8.ValidString(name) {
				t.Errorf("%q is read as %q", s, name)
			}
		}
		if !utf8.ValidString(s) || strings.ContainsRune(s, utf8.RuneError) {
			return
		}
		wire := EncodeUTF7(s)
		if got, err := DecodeUTF7(wire); err != nil || got != s {
			t.Errorf("%q is written %q and read %q, %v", s, wire, got, err)
		}
	})
}
