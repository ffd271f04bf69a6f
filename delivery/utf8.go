package delivery

import (
	"bufio"
	"io"

	"postroad/spool"
)

// headerHasUTF8 reports whether a message's header needs SMTPUTF8 to travel. Many
// senders ask for it on every message; only those that need it are refused where it
// is not offered. At most 1 MiB of it is looked at.
func (r *Runner) headerHasUTF8(m *spool.Message) (bool, error) {
	body, err := r.openBody(m)
	if err != nil {
		return false, err
	}
	defer body.Close()
	return headerHasUTF8(bufio.NewReader(io.LimitReader(body, 1<<20)))
}

func headerHasUTF8(r io.ByteReader) (bool, error) {
	empty := true // so far in this line
	for {
		c, err := r.ReadByte()
		switch {
		case err == io.EOF:
			return false, nil
		case err != nil:
			return false, err
		case c >= 0x80:
			return true, nil
		case c == '\n' && empty:
			return false, nil
		case c == '\n':
			empty = true
		case c != '\r':
			empty = false
		}
	}
}
