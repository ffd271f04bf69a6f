package listentest

import (
	"fmt"
	"syscall"
	"testing"
)

// FreeAddress is an address of this machine that nobody listens on, and that nobody is given who asks for any port.
// Whoever asks for this very one can listen there. Until then connections are refused.
func FreeAddress(t testing.TB) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	must(err)
	t.Cleanup(func() { syscall.Close(fd) })
	// Several may bind an address then, as long as one of them listens. A listener of Go's has this option, too.
	must(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
	must(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	addr, err := syscall.Getsockname(fd)
	must(err)
	return fmt.Sprintf("127.0.0.1:%d", addr.(*syscall.SockaddrInet4).Port)
}
