package mime

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the .golden files anew")

// golden are the messages with one oddity each.
func golden(t testing.TB) []string {
	files, err := filepath.Glob(filepath.Join("..", "..", "testdata", "golden", "*.eml"))
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden messages: %v", err)
	}
	return files
}

func TestGolden(t *testing.T) {
	for _, file := range golden(t) {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".eml"), func(t *testing.T) {
			msg, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			s := check(t, msg)
			checkSlow(t, msg, s)
			got := dump(s)
			expected := strings.TrimSuffix(file, ".eml") + ".golden"
			if *update {
				if err := os.WriteFile(expected, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(expected)
			if err != nil {
				t.Fatal(err)
			}
			if got != string(want) {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}
