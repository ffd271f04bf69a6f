package imapd

import (
	"errors"
	"math"

	"postroad/imapd/wire"
	"postroad/internal/mailbox"
)

// getQuotaRoot is GETQUOTAROOT (RFC 9208, 4.1.2). A mailbox counts against its owner.
func (s *session) getQuotaRoot(c *wire.Mailbox) reply {
	root, err := s.access.QuotaRoot(c.Name)
	if err != nil {
		return s.refuse("find the quota root", err)
	}
	s.out.Raw("* QUOTAROOT ").Mailbox(c.Name).SP().AString(root).CRLF()
	return s.tellQuota(root)
}

// getQuota is GETQUOTA (RFC 9208, 4.1.1).
func (s *session) getQuota(c *wire.GetQuota) reply { return s.tellQuota(c.Root) }

// tellQuota tells of a quota root what is limited there. STORAGE is in units of 1,024 octets, of which a part
// counts as one.
func (s *session) tellQuota(root string) reply {
	q, err := s.access.Quota(root)
	if err != nil {
		return s.refuse("read the quota", noRoot(err))
	}
	s.out.Raw("* QUOTA ").AString(q.Root).SP().Begin()
	if q.Limit.Octets > 0 {
		s.out.Atom("STORAGE").Number(uint64(q.Used.Octets+1023) / 1024).Number(uint64(q.Limit.Octets) / 1024)
	}
	if q.Limit.Messages > 0 {
		s.out.Atom("MESSAGE").Number(uint64(q.Used.Messages)).Number(uint64(q.Limit.Messages))
	}
	s.out.End().CRLF()
	return reply{}
}

// noRoot tells that there is no quota root, instead of no mailbox.
func noRoot(err error) error {
	if errors.Is(err, mailbox.ErrNotFound) {
		return no(codeNonExistent, "there is no such quota root")
	}
	return err
}

// setQuota is SETQUOTA (RFC 9208, 4.1.3), for administrators. A resource that is not named has no limit after it, and
// neither has one with 0.
func (s *session) setQuota(c *wire.SetQuota) reply {
	var limit mailbox.Quota
	for _, l := range c.Limits {
		switch {
		case l.Resource == "STORAGE" && l.Limit <= math.MaxInt64/1024:
			limit.Octets = int64(l.Limit) * 1024
		case l.Resource == "MESSAGE" && l.Limit <= math.MaxInt64:
			limit.Messages = int64(l.Limit)
		default:
			return no(codeCannot, "there are limits for STORAGE and MESSAGE, of less than 2^63 octets and messages")
		}
	}
	if err := s.access.SetQuota(c.Root, limit); err != nil {
		return s.refuse("set the quota", noRoot(err))
	}
	return s.tellQuota(c.Root)
}
