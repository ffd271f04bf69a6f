package imapd

import (
	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// getACL is GETACL (RFC 4314, 3.3).
func (s *session) getACL(c *wire.Mailbox) reply {
	list, err := s.access.ACL(c.Name)
	if err != nil {
		return s.refuse("read the access control list", err)
	}
	s.out.Raw("* ACL ").Mailbox(c.Name)
	for _, g := range list {
		s.out.SP().AString(g.Identifier).AString(g.Rights.String())
	}
	s.out.CRLF()
	return reply{}
}

// setACL is SETACL (RFC 4314, 3.1). A right that does not exist is BAD.
func (s *session) setACL(c *wire.SetACL) reply {
	rights, err := mailbox.ParseRights(c.Rights)
	if err != nil {
		return bad(codeCannot, "%v", err)
	}
	return s.refuse("set the rights", s.access.SetACL(c.Mailbox, c.Identifier, c.Mod, rights))
}

// deleteACL is DELETEACL (RFC 4314, 3.2).
func (s *session) deleteACL(c *wire.Identity) reply {
	return s.refuse("remove the rights", s.access.DeleteACL(c.Mailbox, c.Identifier))
}

// listRights is LISTRIGHTS (RFC 4314, 3.4).
func (s *session) listRights(c *wire.Identity) reply {
	always, optional, err := s.access.ListRights(c.Mailbox, c.Identifier)
	if err != nil {
		return s.refuse("list the rights", err)
	}
	s.out.Raw("* LISTRIGHTS ").Mailbox(c.Mailbox).SP().AString(c.Identifier).AString(always.String())
	for _, r := range optional {
		s.out.Atom(r)
	}
	s.out.CRLF()
	return reply{}
}

// myRights is MYRIGHTS (RFC 4314, 3.5).
func (s *session) myRights(c *wire.Mailbox) reply {
	rights, err := s.access.MyRights(c.Name)
	if err != nil {
		return s.refuse("read your rights", err)
	}
	s.tellMyRights(c.Name, rights)
	return reply{}
}

func (s *session) tellMyRights(name string, rights mailbox.Rights) {
	s.out.Raw("* MYRIGHTS ").Mailbox(name).SP().AString(rights.String()).CRLF()
}
