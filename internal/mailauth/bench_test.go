package mailauth

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// BenchmarkFields is what a message costs that we sign with both keys, and one that we forward and seal.
func BenchmarkFields(b *testing.B) {
	f := open(b)
	f.activeKeys("example.test")
	for _, size := range []int{4 << 10, 1 << 20} {
		text := plain + strings.Repeat(strings.Repeat("seven words are in each of these lines.", 2)+"\r\n", size/80)
		for name, o := range map[string]Outbound{"sign": {Own: true}, "no key": {Own: true, From: addr("ann@far.test")}, "seal": {From: addr("ann@far.test"), Via: addr("fwd@example.test")}} {
			text := text
			if name == "no key" {
				text = strings.Replace(text, "ann@example.test", "ann@far.test", 1)
			}
			b.Run(fmt.Sprintf("%s/%dKiB", name, size>>10), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(len(text)))
				for b.Loop() {
					open := func() (io.ReadCloser, error) { return io.NopCloser(struct{ io.Reader }{strings.NewReader(text)}), nil }
					if _, err := f.signer.Fields(b.Context(), o, open); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
