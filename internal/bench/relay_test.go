package bench

import "testing"

// A sink for many destinations listens at one address for each, at the same port, or not at all.
func TestListenMany(t *testing.T) {
	all, err := listenMany("127.0.9.254:0", 4)
	if err != nil {
		t.Skip("this machine has no second loopback address: ", err)
	}
	last := all[3].Addr().String()
	if _, err := listenMany(last, 2); err == nil {
		t.Error("an address that is taken is no error")
	}
	port := last[len("127.0.10.1"):]
	for i, want := range []string{"127.0.9.254", "127.0.9.255", "127.0.10.0", "127.0.10.1"} {
		if got := all[i].Addr().String(); got != want+port {
			t.Errorf("listens at %s, want %s%s", got, want, port)
		}
		_ = all[i].Close()
	}
	if _, err := listenMany("127.0.0.1", 1); err == nil {
		t.Error("an address without a port is no error")
	}
}
