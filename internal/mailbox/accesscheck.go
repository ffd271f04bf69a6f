package mailbox

import (
	"fmt"

	"postroad/internal/store"
)

// grants holds access control lists against their mailboxes and against the index of grants, both ways.
func (c *checker) grants() {
	type entry struct {
		who Owner
		grantRef
	}
	named := map[entry]bool{}
	for k, v := range c.table("ma") {
		owner, rest := store.TakeUint(k)
		n, _ := store.TakeUint(rest)
		id := ID(n)
		if b := c.boxes[id]; b == nil || b.removed || b.Owner != Owner(owner) {
			c.problem(fmt.Sprintf("mailbox %d", id), "owner %d has no such mailbox, and it has an access control list", owner)
		}
		l, err := decodeACL(id, v)
		if err != nil {
			c.problem(fmt.Sprintf("mailbox %d", id), "%v", err)
		}
		for _, g := range l {
			named[entry{g.who, grantRef{Owner(owner), id}}] = true
		}
	}
	for k := range c.table("mg") {
		who, rest := store.TakeUint(k)
		owner, rest := store.TakeUint(rest)
		id, _ := store.TakeUint(rest)
		e := entry{Owner(who), grantRef{Owner(owner), ID(id)}}
		if !named[e] {
			c.problem(fmt.Sprintf("mailbox %d", e.id), "its access control list does not name account %d, as the index says", who)
		}
		delete(named, e)
	}
	for e := range named {
		c.problem(fmt.Sprintf("mailbox %d", e.id), "the index does not know that its access control list names account %d", e.who)
	}
}

// annotations counts annotations again, and holds them against their mailboxes.
func (c *checker) annotations() {
	type place struct {
		id  ID
		who Owner
	}
	private := map[place]bool{}
	used := map[Owner]annotationUse{}
	for k, v := range c.table("mx") {
		who, rest := store.TakeUint(k)
		id, _ := store.TakeUint(rest)
		b, payer := c.boxes[ID(id)], Owner(who)
		switch {
		case id == uint64(server):
		case b == nil:
			c.problem(fmt.Sprintf("mailbox %d", id), "it does not exist, and account %d has annotated it", who)
			continue
		case payer == sharedEntries:
			payer = b.Owner
		default:
			private[place{b.ID, payer}] = true
		}
		u := used[payer]
		used[payer] = annotationUse{u.entries + 1, u.octets + int64(len(v)-1)}
	}
	for k := range c.table("mo") {
		id, rest := store.TakeUint(k)
		who, _ := store.TakeUint(rest)
		p := place{ID(id), Owner(who)}
		if !private[p] {
			c.problem(fmt.Sprintf("mailbox %d", id), "account %d has not annotated it, as the index says", p.who)
		}
		delete(private, p)
	}
	for p := range private {
		c.problem(fmt.Sprintf("mailbox %d", p.id), "the index does not know that account %d has annotated it", p.who)
	}
	c.annotationUses(used)
}

func (c *checker) annotationUses(used map[Owner]annotationUse) {
	for k := range c.table("my") {
		n, _ := store.TakeUint(k)
		owner := Owner(n)
		has, err := loadAnnotationUse(c.r, owner)
		if err != nil || has != used[owner] {
			c.problem(fmt.Sprintf("owner %d", owner), "the sums of annotations say %+v, and there are %+v (%v)", has, used[owner], err)
		}
		delete(used, owner)
	}
	for owner, u := range used {
		c.problem(fmt.Sprintf("owner %d", owner), "there are no sums of annotations, and there are %+v", u)
	}
}
