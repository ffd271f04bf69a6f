// Package wire is the grammar of IMAP: commands as a client writes them (RFC 9051, 9) become
// values, and responses are written. It knows nothing of mailboxes.
package wire
