package imapd

// states are where in its life a session is (RFC 9051, 3).
type states uint8

const (
	notAuthenticated states = 1 << iota
	authenticated           // and no mailbox is selected
	inMailbox               // a mailbox is selected

	loggedIn = authenticated | inMailbox
	anyState = notAuthenticated | loggedIn
)

// state is where the session is.
func (s *session) state() states {
	switch {
	case s.owner == 0:
		return notAuthenticated
	case s.sel == nil:
		return authenticated
	}
	return inMailbox
}

// wrongState says why a command for other states cannot be given now.
func (s *session) wrongState(in states) string {
	switch {
	case s.state() == notAuthenticated:
		return "log in first"
	case in == notAuthenticated:
		return "you are logged in already"
	}
	return "select a mailbox first"
}

// A command is where it may be given, and what answers it.
type command struct {
	in  states
	run func(s *session, args any) reply
}

// with makes a command of a handler that takes arguments.
func with[T any](in states, handle func(*session, *T) reply) command {
	return command{in, func(s *session, args any) reply { return handle(s, args.(*T)) }}
}

// bare makes a command of a handler that takes none.
func bare(in states, handle func(*session) reply) command {
	return command{in, func(s *session, _ any) reply { return handle(s) }}
}

// find returns a command by its name, which is in capitals and without UID.
func find(name string) (command, bool) {
	switch name {
	// At any time.
	case "CAPABILITY":
		return bare(anyState, (*session).capability), true
	case "NOOP":
		return bare(anyState, (*session).noop), true
	case "LOGOUT":
		return bare(anyState, (*session).logout), true
	case "ID":
		return with(anyState, (*session).id), true

	// Who the client is.
	case "STARTTLS":
		return bare(notAuthenticated, (*session).startTLS), true
	case "LOGIN":
		return with(notAuthenticated, (*session).login), true
	case "AUTHENTICATE":
		return with(notAuthenticated, (*session).authenticate), true
	case "UNAUTHENTICATE":
		return bare(loggedIn, (*session).unauthenticate), true
	case "COMPRESS":
		return with(loggedIn, (*session).compress), true
	case "ENABLE":
		return with(loggedIn, (*session).enable), true

	// The selected mailbox.
	case "SELECT":
		return with(loggedIn, (*session).selectMailbox), true
	case "EXAMINE":
		return with(loggedIn, (*session).examine), true
	case "CLOSE":
		return bare(inMailbox, (*session).closeMailbox), true
	case "UNSELECT":
		return bare(inMailbox, (*session).unselectMailbox), true
	case "CHECK":
		return bare(inMailbox, (*session).noop), true
	case "IDLE":
		return bare(loggedIn, (*session).idle), true

	// Reading messages.
	case "FETCH":
		return with(inMailbox, (*session).fetch), true

	// Changing messages.
	case "APPEND":
		return with(loggedIn, (*session).append), true
	case "REPLACE":
		return with(inMailbox, (*session).replace), true
	case "STORE":
		return with(inMailbox, (*session).store), true
	case "COPY":
		return with(inMailbox, (*session).copy), true
	case "MOVE":
		return with(inMailbox, (*session).move), true
	case "EXPUNGE":
		return with(inMailbox, (*session).expunge), true

	// Searching.
	case "SEARCH":
		return with(inMailbox, (*session).search), true
	case "ESEARCH":
		return with(loggedIn, (*session).search), true
	case "SORT":
		return with(inMailbox, (*session).sort), true
	case "THREAD":
		return with(inMailbox, (*session).thread), true
	case "CANCELUPDATE":
		return with(inMailbox, (*session).cancelUpdate), true

	// Mailboxes.
	case "LIST":
		return with(loggedIn, (*session).list), true
	case "LSUB":
		return with(loggedIn, (*session).lsub), true
	case "CREATE":
		return with(loggedIn, (*session).create), true
	case "DELETE":
		return with(loggedIn, (*session).remove), true
	case "RENAME":
		return with(loggedIn, (*session).rename), true
	case "SUBSCRIBE":
		return with(loggedIn, (*session).subscribe), true
	case "UNSUBSCRIBE":
		return with(loggedIn, (*session).unsubscribe), true
	case "STATUS":
		return with(loggedIn, (*session).statusOf), true
	case "NAMESPACE":
		return bare(loggedIn, (*session).namespace), true

	// Quota, rights, metadata, notices.
	case "GETQUOTAROOT":
		return with(loggedIn, (*session).getQuotaRoot), true
	case "GETQUOTA":
		return with(loggedIn, (*session).getQuota), true
	case "SETQUOTA":
		return with(loggedIn, (*session).setQuota), true
	case "GETACL":
		return with(loggedIn, (*session).getACL), true
	case "SETACL":
		return with(loggedIn, (*session).setACL), true
	case "DELETEACL":
		return with(loggedIn, (*session).deleteACL), true
	case "LISTRIGHTS":
		return with(loggedIn, (*session).listRights), true
	case "MYRIGHTS":
		return with(loggedIn, (*session).myRights), true
	case "GETMETADATA":
		return with(loggedIn, (*session).getMetadata), true
	case "SETMETADATA":
		return with(loggedIn, (*session).setMetadata), true
	case "NOTIFY":
		return with(loggedIn, (*session).notify), true
	}
	return command{}, false
}
