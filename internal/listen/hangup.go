package listen

import "syscall"

// Hangup looks, without waiting, whether the peer has said that it will send no more, and whether the connection is
// broken. While octets of the peer's wait to be read, and of connections that are no sockets, it does not know.
func (c *Conn) Hangup() (closed, broken bool) {
	socket, ok := c.inner.(syscall.Conn)
	if !ok {
		return false, false
	}
	raw, err := socket.SyscallConn()
	if err != nil {
		return false, true
	}
	err = raw.Control(func(fd uintptr) {
		var octet [1]byte
		n, _, err := syscall.Recvfrom(int(fd), octet[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		closed = n == 0 && err == nil
		broken = err != nil && err != syscall.EAGAIN && err != syscall.EINTR
		if fault, err := syscall.GetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_ERROR); fault != 0 || err != nil {
			broken = true // what a read does not tell after the peer has closed its side
		}
	})
	return closed, broken || err != nil
}
