package mime

import (
	"bytes"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// corpus calls f with every file below the folder of the shared corpus.
func corpus(t *testing.T, folder string, f func(t *testing.T, msg []byte)) {
	root := filepath.Join("..", "..", "..", "shared", "corpus", folder)
	if _, err := os.Stat(root); err != nil {
		t.Skip("the shared corpus is not beside the repository")
	}
	files := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Type()&fs.ModeSymlink != 0 {
			return err
		}
		msg, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if files++; testing.Short() && files%10 != 1 { // one goroutine's work
			return nil
		}
		name, _ := filepath.Rel(root, path)
		t.Run(name, func(t *testing.T) { f(t, msg) })
		return nil
	})
	if err != nil || files == 0 {
		t.Fatalf("%d files read: %v", files, err)
	}
}

func TestCorpus(t *testing.T) {
	for _, folder := range []string{"eml", "mbox", "fuzzseeds"} {
		t.Run(folder, func(t *testing.T) {
			corpus(t, folder, func(t *testing.T, msg []byte) {
				s := check(t, msg)
				checkText(t, msg, &s.Root)
				checkSlow(t, msg, s)
			})
		})
	}
}

// checkText reads every text of a part.
func checkText(t *testing.T, msg []byte, p *Part) {
	body := bytes.NewReader(msg[p.Body.Off:p.Body.End()])
	if r, ok := TextReader(p, body); ok {
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Errorf("%s/%s %s %v: %v", p.Type, p.Subtype, p.Encoding, p.Params, err)
		}
	}
	for i := range p.Parts {
		checkText(t, msg, &p.Parts[i])
	}
	if p.Message != nil {
		checkText(t, msg, &p.Message.Root)
	}
}
