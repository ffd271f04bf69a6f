package control

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"net/http"
)

// Requests and replies are lines of JSON. A request is one line, its argument; an
// import has frames after it. A reply is any number of frames and a last one.

// A frame is one line. A reply ends with a frame that has Done; without it, it was
// cut off.
type frame struct {
	Item     json.RawMessage `json:"item,omitempty"`     // of a list
	Progress json.RawMessage `json:"progress,omitempty"` // of long work
	Message  json.RawMessage `json:"message,omitempty"`  // begins a message
	Bytes    []byte          `json:"bytes,omitempty"`    // of a message
	Done     bool            `json:"done,omitempty"`     // the end of a message, or of the reply
	Result   json.RawMessage `json:"result,omitempty"`
	Error    *Error          `json:"error,omitempty"`
}

const (
	maxLine  = 4 << 20  // octets of a frame: an account's largest listing entry is far smaller
	maxBytes = 48 << 10 // octets of a message in one frame
)

// errCutOff means that the other side ended before it was done.
var errCutOff = errors.New("the connection ended early")

// frameReader reads frames.
type frameReader struct{ lines *bufio.Scanner }

func newFrameReader(r io.Reader) *frameReader {
	lines := bufio.NewScanner(r)
	lines.Buffer(make([]byte, 0, 4<<10), maxLine)
	return &frameReader{lines}
}

// read reads a line into v.
func (r *frameReader) read(v any) error {
	if !r.lines.Scan() {
		if err := r.lines.Err(); err != nil {
			return err
		}
		return errCutOff
	}
	return json.Unmarshal(r.lines.Bytes(), v)
}

// frameWriter writes frames, each at once.
type frameWriter struct {
	enc   *json.Encoder
	flush func() error
}

func newFrameWriter(w io.Writer) *frameWriter {
	fw := &frameWriter{enc: json.NewEncoder(w), flush: func() error { return nil }}
	if rw, ok := w.(http.ResponseWriter); ok {
		fw.flush = http.NewResponseController(rw).Flush
	}
	return fw
}

func (w *frameWriter) write(f frame) error {
	if err := w.enc.Encode(f); err != nil {
		return err
	}
	return w.flush()
}

func (w *frameWriter) item(v any) error     { return w.write(frame{Item: raw(v)}) }
func (w *frameWriter) progress(v any) error { return w.write(frame{Progress: raw(v)}) }

// Write sends octets of a message.
func (w *frameWriter) Write(p []byte) (int, error) {
	sent := 0
	for sent < len(p) {
		n := min(len(p)-sent, maxBytes)
		if err := w.write(frame{Bytes: p[sent : sent+n]}); err != nil {
			return sent, err
		}
		sent += n
	}
	return sent, nil
}

// raw encodes one of our own types, none of which can fail.
func raw(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic("control: " + err.Error())
	}
	return b
}
