package wire

import "bytes"

// verb is how a command goes on after its name.
type verb struct {
	name string
	args func(*Decoder) any // nil when it has no arguments
	uid  bool               // UID may be in front
}

// verbs are all commands. Which of them may be used when is for the session to say.
var verbs = byName(
	verb{name: "CAPABILITY"}, verb{name: "NOOP"}, verb{name: "LOGOUT"}, verb{name: "STARTTLS"},
	verb{name: "CHECK"}, verb{name: "CLOSE"}, verb{name: "UNSELECT"}, verb{name: "IDLE"},
	verb{name: "NAMESPACE"}, verb{name: "UNAUTHENTICATE"},

	verb{name: "AUTHENTICATE", args: (*Decoder).authenticate},
	verb{name: "LOGIN", args: (*Decoder).login},
	verb{name: "ENABLE", args: (*Decoder).enable},
	verb{name: "ID", args: (*Decoder).id},
	verb{name: "COMPRESS", args: (*Decoder).compress},

	verb{name: "SELECT", args: (*Decoder).selectMailbox},
	verb{name: "EXAMINE", args: (*Decoder).selectMailbox},
	verb{name: "CREATE", args: (*Decoder).create},
	verb{name: "DELETE", args: (*Decoder).oneMailbox},
	verb{name: "RENAME", args: (*Decoder).rename},
	verb{name: "SUBSCRIBE", args: (*Decoder).oneMailbox},
	verb{name: "UNSUBSCRIBE", args: (*Decoder).oneMailbox},
	verb{name: "LIST", args: (*Decoder).listMailboxes},
	verb{name: "LSUB", args: (*Decoder).lsub},
	verb{name: "STATUS", args: (*Decoder).status},
	verb{name: "NOTIFY", args: (*Decoder).notify},

	verb{name: "SETACL", args: (*Decoder).setACL},
	verb{name: "DELETEACL", args: (*Decoder).identity},
	verb{name: "LISTRIGHTS", args: (*Decoder).identity},
	verb{name: "GETACL", args: (*Decoder).oneMailbox},
	verb{name: "MYRIGHTS", args: (*Decoder).oneMailbox},
	verb{name: "GETMETADATA", args: (*Decoder).getMetadata},
	verb{name: "SETMETADATA", args: (*Decoder).setMetadata},
	verb{name: "GETQUOTA", args: (*Decoder).getQuota},
	verb{name: "GETQUOTAROOT", args: (*Decoder).oneMailbox},
	verb{name: "SETQUOTA", args: (*Decoder).setQuota},

	verb{name: "APPEND", args: (*Decoder).appendTo},
	verb{name: "REPLACE", args: (*Decoder).replace, uid: true},
	verb{name: "EXPUNGE", args: (*Decoder).expunge, uid: true},
	verb{name: "COPY", args: (*Decoder).copyTo, uid: true},
	verb{name: "MOVE", args: (*Decoder).copyTo, uid: true},
	verb{name: "STORE", args: (*Decoder).store, uid: true},
	verb{name: "FETCH", args: (*Decoder).fetch, uid: true},

	verb{name: "SEARCH", args: (*Decoder).search, uid: true},
	verb{name: "ESEARCH", args: (*Decoder).esearch},
	verb{name: "SORT", args: (*Decoder).sort, uid: true},
	verb{name: "THREAD", args: (*Decoder).thread, uid: true},
	verb{name: "CANCELUPDATE", args: (*Decoder).cancelUpdate},
)

func byName(all ...verb) map[string]verb {
	m := make(map[string]verb, len(all))
	for _, v := range all {
		m[v.name] = v
	}
	return m
}

// login = "LOGIN" SP userid SP password (RFC 9051, 6.2.3)
func (d *Decoder) login() any {
	d.secret = true
	d.space()
	user := d.astring("a user name")
	d.space()
	return &Login{User: user, Password: d.astring("a password")}
}

// authenticate = "AUTHENTICATE" SP auth-type [SP initial-resp] (RFC 9051, 6.2.2)
func (d *Decoder) authenticate() any {
	d.space()
	a := &Authenticate{Mechanism: d.capital("a mechanism")}
	d.secret = true
	if !d.optional() {
		return a
	}
	a.Initial = []byte{}
	if string(bytes.TrimRight(d.line[d.pos:], " ")) == "=" {
		d.pos++
		return a
	}
	a.Initial = d.base64()
	return a
}

// enable = "ENABLE" 1*(SP capability) (RFC 9051, 6.3.1)
func (d *Decoder) enable() any {
	e := &Enable{}
	d.space()
	for more := true; more; more = d.optional() {
		d.count()
		e.Capabilities = append(e.Capabilities, d.capital("a capability"))
	}
	return e
}

// id = "ID" SP ("(" [string SP nstring *(SP string SP nstring)] ")" / nil) (RFC 2971, 5)
func (d *Decoder) id() any {
	d.space()
	id := &ID{}
	if d.word("NIL") {
		return id
	}
	if d.peek() != '(' {
		d.want("a list of fields and values, or NIL")
	}
	d.list(func() {
		name := d.astring("the name of a field")
		d.space()
		value, _ := d.nstring("a value in quotes, or NIL")
		id.Fields = append(id.Fields, Field{name, value})
	})
	return id
}

// compress = "COMPRESS" SP algorithm (RFC 4978, 4)
func (d *Decoder) compress() any {
	d.space()
	return &Compress{Algorithm: d.capital("an algorithm")}
}
