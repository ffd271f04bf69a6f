package envelope

import (
	"strings"
	"testing"
	"time"
)

// TestCostIsBounded: no input makes the parser work for long.
func TestCostIsBounded(t *testing.T) {
	for name, in := range map[string]string{
		"one long label":   "a@" + strings.Repeat("ü", 500),
		"many labels":      "a@" + strings.Repeat("ü.", 340) + "de",
		"many A-labels":    "a@" + strings.Repeat("xn--a.", 160) + "de",
		"long A-label":     "a@xn--" + strings.Repeat("9", 1000),
		"combining marks":  "a@" + strings.Repeat("u\u0308", 300),
		"expanding":        "a@" + strings.Repeat("ﷺ", 300),
		"joiners":          "a@" + strings.Repeat("क\u094d\u200d", 100),
		"huge":             strings.Repeat("ü@", 1<<20),
		"huge route":       "<" + strings.Repeat("@a,", 1<<20) + ">",
		"huge quoted part": `"` + strings.Repeat(`\"`, 1<<20),
	} {
		start := time.Now()
		for range 10 {
			ParsePath(in)
		}
		if d := time.Since(start) / 10; d > 50*time.Millisecond {
			t.Errorf("%s: %v", name, d)
		} else {
			t.Logf("%s: %v", name, d)
		}
	}
}
