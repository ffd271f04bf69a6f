// Package wire is SMTP as octets (RFC 5321, 4.1 to 4.5; RFC 3030): what a peer sends becomes commands, paths,
// parameters and content, and replies are written. It has no policy: a session decides what an answer is.
//
// What is promised, whatever a peer sends and however the network cuts it:
//
//   - CRLF alone ends a line. A bare CR, a bare LF or another control octet makes a command a [SyntaxError], and nothing
//     of its line is taken for another command.
//   - Content of DATA ends at CRLF "." CRLF alone, that of BDAT after as many octets as were announced. A peer that goes
//     away before gives [io.ErrUnexpectedEOF], never [io.EOF].
//   - Content is never taken for commands: until it was read to its end, [Reader.Command] gives [ErrUnread].
//   - A line is held in memory up to its limit and no further; nobody waits for the end of an endless one. Content is
//     passed on as it comes, whatever the length of its lines.
//   - Nothing but printable ASCII goes out in a reply, and no line of more than 512 octets.
//
// A Reader that waits for a command holds 0.8 KiB and a Writer 0.1 KiB. Lines of more than 512 octets, one or several
// together, borrow 4 KiB; content and the longest lines of AUTH 32 KiB; replies that wait for Flush 4 KiB.
package wire
