package smtpc

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"postroad/internal/envelope"
)

// Bounds of one reply.
const (
	maxLines = 100
	maxLine  = 2048 // RFC 5321, 4.5.3.1.5 says 512; some say more
	maxText  = 1000 // octets kept of all lines
)

var errReply = errors.New("the server's reply is not SMTP")

// readReply reads one reply of any number of lines (RFC 5321, 4.2.1) and returns
// the text of each line, and the reply without From and At.
func readReply(r *bufio.Reader) ([]string, envelope.Reply, error) {
	var reply envelope.Reply
	var lines []string
	for {
		line, err := readLine(r)
		if err != nil {
			return nil, envelope.Reply{}, err
		}
		code, last, text, err := splitLine(line)
		if err != nil || len(lines) > 0 && code != reply.Code || len(lines) == maxLines {
			return nil, envelope.Reply{}, fmt.Errorf("%w: %q", errReply, envelope.Sanitize(line, 100))
		}
		reply.Code = code
		lines = append(lines, text)
		if last {
			reply.Enhanced, reply.Text = joinLines(code, lines)
			return lines, reply, nil
		}
	}
}

// readLine reads up to LF. The line end may lack its CR: replies are for us only,
// nothing can be smuggled in them.
func readLine(r *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return strings.TrimRight(string(line), "\r\n"), nil
		case err == io.EOF && len(line) > 0:
			return "", io.ErrUnexpectedEOF
		case err != bufio.ErrBufferFull:
			return "", err
		case len(line) > maxLine:
			return "", fmt.Errorf("%w: a line is too long", errReply)
		}
	}
}

// splitLine takes "250-text" or "250 text" apart.
func splitLine(line string) (code int, last bool, text string, err error) {
	if len(line) > maxLine || len(line) < 3 || line[0] < '2' || line[0] > '5' || !digit(line[1]) || !digit(line[2]) {
		return 0, false, "", errReply
	}
	code = int(line[0]-'0')*100 + int(line[1]-'0')*10 + int(line[2]-'0')
	if len(line) == 3 {
		return code, true, "", nil
	}
	if line[3] != ' ' && line[3] != '-' {
		return 0, false, "", errReply
	}
	return code, line[3] == ' ', line[4:], nil
}

func digit(c byte) bool { return '0' <= c && c <= '9' }

// joinLines takes the enhanced code off each line (RFC 2034) and joins the rest.
func joinLines(code int, lines []string) (enhanced, text string) {
	var words []string
	for _, line := range lines {
		first, rest, _ := strings.Cut(line, " ")
		if isEnhanced(first, code) {
			enhanced, line = first, rest
		}
		words = append(words, line)
	}
	return enhanced, envelope.Sanitize(strings.Join(words, " "), maxText)
}

// isEnhanced reports whether s is class.subject.detail of the code's class.
func isEnhanced(s string, code int) bool {
	parts := strings.Split(s, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || int(parts[0][0]-'0') != code/100 {
		return false
	}
	for _, p := range parts[1:] {
		if p == "" || len(p) > 3 || strings.Trim(p, "0123456789") != "" {
			return false
		}
	}
	return true
}

// explain says in a person's words why there is no reply.
func explain(err error) string {
	var op *net.OpError
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "no answer in time"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the server closed the connection"
	case errors.Is(err, net.ErrClosed):
		return "the connection was closed"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}
