package imapd

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"strings"

	"github.com/emersion/go-imap/v2"
	"github.com/emersion/go-imap/v2/imapserver"

	"postroad/internal/listen"
)

// libraries are the library's servers. What it announces about login and STARTTLS is fixed for a
// server, so there is one for each kind of connection.
type libraries struct {
	secure *imapserver.Server // TLS: login
	local  *imapserver.Server // loopback in the clear: login, and STARTTLS when there is a certificate
	remote *imapserver.Server // the network in the clear: LOGINDISABLED until STARTTLS
}

func newLibraries(s *Server) libraries {
	server := func(login bool, tc *tls.Config) *imapserver.Server {
		return imapserver.New(&imapserver.Options{
			NewSession: func(c *imapserver.Conn) (imapserver.Session, *imapserver.GreetingData, error) {
				return newSession(c), nil, nil
			},
			Caps:         capabilities(),
			Logger:       libraryLog{s.Log},
			InsecureAuth: login,
			TLSConfig:    tc,
		})
	}
	return libraries{server(true, nil), server(true, s.TLS), server(false, s.TLS)}
}

// capabilities are what the library announces beyond what it always does.
func capabilities() imap.CapSet {
	set := imap.CapSet{}
	for _, c := range []imap.Cap{
		imap.CapIMAP4rev1, imap.CapIMAP4rev2, imap.CapNamespace, imap.CapUIDPlus, imap.CapESearch,
		imap.CapSearchRes, imap.CapListExtended, imap.CapListStatus, imap.CapMove, imap.CapStatusSize,
		imap.CapBinary, imap.CapChildren, imap.CapSpecialUse, imap.CapCreateSpecialUse,
		imap.CapLiteralPlus, imap.CapUnauthenticate, imap.CapAppendLimit,
	} {
		set[c] = struct{}{}
	}
	return set
}

// serve gives a wire to the server of its kind. The session runs in a goroutine of the library.
func (l libraries) serve(w *wire) {
	lib := l.remote
	switch {
	case w.secure:
		lib = l.secure
	case w.mayLogin:
		lib = l.local
	}
	lib.Serve(listen.One(w))
}

// libraryLog takes the library's lines. They are about what clients got wrong, and about panics.
type libraryLog struct{ log *slog.Logger }

func (l libraryLog) Printf(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	if strings.HasPrefix(text, "panic") {
		l.log.Error("the IMAP session ended by a panic", "err", text)
		return
	}
	l.log.Debug("imap", "event", text)
}
