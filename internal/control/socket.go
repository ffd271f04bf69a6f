package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// socketName is the socket's name in the data directory.
const socketName = "control.sock"

// SocketPath is where the server of a data directory is reached.
func SocketPath(dir string) string { return filepath.Join(dir, socketName) }

// ErrNoServer means that no server answers at the socket.
var ErrNoServer = errors.New("no server is running there")

// connectTimeout bounds waiting for a server whose queue of connections is full.
const connectTimeout = 5 * time.Second

// maxSocketPath is the longest path that fits into a socket's address, with the
// zero that ends it.
const maxSocketPath = 107

// short returns a path for the socket that fits into a socket's address, whatever
// the length of path: through the open directory. release closes the directory.
func short(path string) (fits string, release func(), err error) {
	if len(path) <= maxSocketPath {
		return path, func() {}, nil
	}
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	fits = fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path))
	return fits, func() { dir.Close() }, nil
}

// Listen makes the socket in the data directory, readable and writable by its owner
// only from the first moment. A socket that a server left behind is replaced; one
// at which a server answers is not.
func Listen(dir string) (net.Listener, error) {
	path := SocketPath(dir)
	if err := removeStale(path); err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	l, err := listenOwnerOnly(path)
	if err != nil {
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return l, nil
}

func removeStale(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something that is not a socket is in its place; move it away")
	}
	c, err := connect(context.Background(), path)
	if err == nil {
		c.Close()
		return errors.New("another server answers there")
	}
	if !errors.Is(err, ErrNoServer) {
		return err
	}
	return os.Remove(path)
}

// listenOwnerOnly sets the mode before the socket has a name: on Linux, bind gives
// the name the socket's own mode.
func listenOwnerOnly(path string) (net.Listener, error) {
	fits, release, err := short(path)
	if err != nil {
		return nil, err
	}
	defer release()
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var failed error
		err := c.Control(func(fd uintptr) { failed = syscall.Fchmod(int(fd), 0o600) })
		return errors.Join(err, failed)
	}}
	l, err := lc.Listen(context.Background(), "unix", fits)
	if err != nil {
		return nil, err
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // the short path is gone by then
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return &socket{UnixListener: l.(*net.UnixListener), path: path, admits: allowed}, nil
}

// socket is a listening socket that removes its own name.
type socket struct {
	*net.UnixListener
	path   string
	admits func(uid int) bool
	remove sync.Once
}

// Close closes the socket and removes its name.
func (s *socket) Close() error {
	s.remove.Do(func() { _ = os.Remove(s.path) })
	return s.UnixListener.Close()
}

// Accept takes connections of the server's own user and of root, and hangs up on
// all others.
func (s *socket) Accept() (net.Conn, error) {
	for {
		c, err := s.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if uid, err := peer(c); err == nil && s.admits(uid) {
			return admitted{c, uid}, nil
		}
		c.Close()
	}
}

// admitted is a connection whose other end is known.
type admitted struct {
	*net.UnixConn
	uid int
}

func allowed(uid int) bool { return uid == 0 || uid == os.Geteuid() }

// peer returns the user at the other end, as the kernel knows it.
func peer(c *net.UnixConn) (uid int, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *syscall.Ucred
	var failed error
	err = raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err := errors.Join(err, failed); err != nil {
		return 0, err
	}
	return int(cred.Uid), nil
}

// connect connects to a socket, or returns ErrNoServer.
func connect(ctx context.Context, path string) (net.Conn, error) {
	c, err := dial(ctx, path)
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, fs.ErrNotExist):
		return nil, ErrNoServer
	case errors.Is(err, fs.ErrPermission):
		return nil, Errorf(Unavailable, "control socket %s: permission denied", path).
			WithHint("run this as the user whose server it is, or as root")
	case err != nil:
		return nil, fmt.Errorf("control socket %s: %w", path, err)
	}
	return c, nil
}

func dial(ctx context.Context, path string) (net.Conn, error) {
	fits, release, err := short(path)
	if err != nil {
		return nil, err
	}
	defer release()
	d := net.Dialer{Timeout: connectTimeout}
	return d.DialContext(ctx, "unix", fits)
}
