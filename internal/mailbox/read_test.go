package mailbox

import "testing"

// To read a message, its note and its body takes no memory for each of them.
func TestReadAllocates(t *testing.T) {
	h := open(t, Options{})
	id := h.box("a").ID
	const n = 2000
	for have := 0; have < n; have += 1000 {
		h.different(id, 1000)
	}
	allocs := testing.AllocsPerRun(3, func() {
		read := 0
		for item, err := range h.Read(id, nil, Notes|Bodies) {
			if err != nil || item.Err != nil || item.Body.Size() != item.Size {
				t.Fatal(err, item.Err)
			}
			read++
		}
		if read != n {
			t.Fatalf("%d messages", read)
		}
	})
	if allocs > n/2 {
		t.Errorf("%.0f allocations for %d messages", allocs, n)
	}
}
