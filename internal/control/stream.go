package control

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
)

// send writes messages as frames: each begins with Message, goes on with Bytes and
// ends with Done; the last frame of all has Done alone. An error of the source is
// sent, so that the other side ends as it would in process.
func send(out *frameWriter, messages iter.Seq2[ImportMessage, error]) error {
	buf := make([]byte, maxBytes)
	for m, err := range messages {
		if err != nil {
			return out.write(frame{Done: true, Error: asError(err)})
		}
		if err := sendOne(out, m, buf); err != nil {
			return err
		}
	}
	return out.write(frame{Done: true})
}

// sendOne writes a message; an error in reading it takes the place of its end.
func sendOne(out *frameWriter, m ImportMessage, buf []byte) error {
	if err := out.write(frame{Message: raw(m)}); err != nil {
		return err
	}
	for {
		n, err := m.Body.Read(buf)
		if n > 0 {
			if _, err := out.Write(buf[:n]); err != nil {
				return err
			}
		}
		switch {
		case err == io.EOF:
			return out.write(frame{Done: true})
		case err != nil:
			return out.write(frame{Done: true, Error: asError(err)})
		}
	}
}

// receive yields the messages that send wrote.
func receive(in *frameReader) iter.Seq2[ImportMessage, error] {
	return func(yield func(ImportMessage, error) bool) {
		for {
			m, more, err := receiveHead(in)
			if err != nil {
				yield(ImportMessage{}, err)
				return
			}
			if !more {
				return
			}
			body := &receivedBody{in: in}
			m.Body = body
			if !yield(m, nil) {
				return
			}
			if _, err := io.Copy(io.Discard, body); err != nil {
				yield(ImportMessage{}, err)
				return
			}
		}
	}
}

func receiveHead(in *frameReader) (m ImportMessage, more bool, err error) {
	var f frame
	if err := in.read(&f); err != nil {
		return m, false, Errorf(Invalid, "the import was cut off: %v", err)
	}
	switch {
	case f.Error != nil:
		return m, false, f.Error
	case f.Done:
		return m, false, nil
	case f.Message == nil:
		return m, false, Errorf(Invalid, "the import is out of order: no message begins")
	}
	if err := json.Unmarshal(f.Message, &m); err != nil {
		return m, false, Errorf(Invalid, "the import is out of order: %v", err)
	}
	return m, true, nil
}

// receivedBody reads one message's octets; io.EOF comes only when its sender was done.
type receivedBody struct {
	in   *frameReader
	rest []byte
	err  error
}

// Read reads octets of the message.
func (b *receivedBody) Read(p []byte) (int, error) {
	for len(b.rest) == 0 {
		if b.err != nil {
			return 0, b.err
		}
		var f frame
		switch err := b.in.read(&f); {
		case err != nil:
			b.err = fmt.Errorf("the import was cut off: %w", err)
		case f.Error != nil:
			b.err = f.Error
		case f.Done:
			b.err = io.EOF
		default:
			b.rest = f.Bytes
		}
	}
	n := copy(p, b.rest)
	b.rest = b.rest[n:]
	return n, nil
}
