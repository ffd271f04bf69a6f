package durable

import (
	"os"
	"path/filepath"
	"testing"
)

// A file is replaced as a whole, whatever an earlier try has left behind, and stays when that fails.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, "key.pem")
	if err := os.WriteFile(name+".tmp", []byte("a longer text, half written"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first", "second and longer", "3"} {
		if err := WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	info, err := os.Stat(name)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, _ := filepath.Glob(name + ".tmp"); len(left) > 0 {
		t.Errorf("left behind: %q", left)
	}
	if err := os.Mkdir(name+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := WriteFile(name, []byte("4"), 0o600); err == nil {
		t.Error("written over a directory")
	}
	if got, _ := os.ReadFile(name); string(got) != "3" {
		t.Errorf("after a failure: %q", got)
	}
}
