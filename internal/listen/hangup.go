package listen

import "syscall"

// Hangup looks, without waiting, whether the peer has said that it will send no more, and whether the connection is
// broken. While octets of the peer's wait to be read, and of connections that are no sockets, it does not know.
func (c *Conn) Hangup() (closed, broken bool) {
	err := c.control(func(fd int) {
		n, err := peek(fd)
		closed = n == 0 && err == nil
		broken = err != nil && err != syscall.EAGAIN && err != syscall.EINTR
		if fault, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_ERROR); fault != 0 || err != nil {
			broken = true // what a read does not tell after the peer has closed its side
		}
	})
	return closed, broken || err != nil
}

// waits reports whether octets of the peer's wait to be read.
func (c *Conn) waits() (yes bool) {
	_ = c.control(func(fd int) {
		n, err := peek(fd)
		yes = n > 0 && err == nil
	})
	return yes
}

// peek looks at the next octet without taking it, and without waiting for one.
func peek(fd int) (int, error) {
	var octet [1]byte
	n, _, err := syscall.Recvfrom(fd, octet[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
	return n, err
}

// control calls fn with the connection's descriptor, if it is a socket.
func (c *Conn) control(fn func(fd int)) error {
	socket, ok := c.inner.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Control(func(fd uintptr) { fn(int(fd)) })
}
