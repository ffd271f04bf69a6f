package imapd

import (
	"errors"
	"net/netip"

	"postroad/internal/gate"
	"postroad/internal/listen"
)

// enter asks the gate about a connection, for its listener.
func (s *Server) enter(from netip.Addr) (pass listen.Pass, told string, ok bool) {
	p, err := s.Gate.Enter(from)
	if err == nil {
		return p, "", true
	}
	if s.implicitTLS { // where nothing can be said in the clear
		return nil, "", false
	}
	code := "UNAVAILABLE"
	if r, ok := errors.AsType[*gate.Refusal](err); ok && r.Permanent {
		code = "CONTACTADMIN"
	}
	return nil, "* BYE [" + code + "] " + err.Error() + "\r\n", false
}

// pass is what the gate gave the connection; nil without a gate.
func (s *session) pass() *gate.Pass {
	pass, _ := s.conn.raw.Pass().(*gate.Pass)
	return pass
}
