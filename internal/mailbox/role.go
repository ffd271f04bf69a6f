package mailbox

import (
	"fmt"
	"slices"
	"strings"

	"postroad/internal/store"
)

var possible = []Role{Archive, Drafts, Junk, Sent, Trash}

// Roles returns the special uses of r one by one.
func (r Role) Roles() []Role {
	var roles []Role
	for word := range strings.FieldsSeq(string(r)) {
		roles = append(roles, Role(word))
	}
	return roles
}

// Has reports whether r is or includes a special use.
func (r Role) Has(role Role) bool { return slices.Contains(r.Roles(), role) }

// ParseRole makes one role of the special uses that a mailbox is to have, in any case. \All and \Flagged would
// be views of other mailboxes' messages, which there are none of (RFC 6154, 2). ErrRole.
func ParseRole(uses []string) (Role, error) {
	var role []string
	for _, use := range uses {
		i := slices.IndexFunc(possible, func(r Role) bool { return strings.EqualFold(string(r), use) })
		if i < 0 {
			return "", fmt.Errorf("%w: %s", ErrRole, use)
		}
		if !slices.Contains(role, string(possible[i])) {
			role = append(role, string(possible[i]))
		}
	}
	return Role(strings.Join(role, " ")), nil
}

// vacant says ErrRole when a mailbox of the owner's but id has one of the special uses.
func vacant(r store.Reader, o Owner, role Role, id ID) error {
	if role == "" {
		return nil
	}
	list, err := ownList(r, o)
	for _, m := range list {
		for _, use := range role.Roles() {
			if m.ID != id && m.Role.Has(use) {
				return fmt.Errorf("%w: %q is %s already", ErrRole, m.Name, use)
			}
		}
	}
	return err
}
