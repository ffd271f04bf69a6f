package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"

	"postroad/internal/mime"
)

// Bounds on what is read.
const (
	maxInput = 16 << 20 // octets: a mail with a report in base64
	maxRatio = 100      // octets that one compressed octet may stand for
)

// Read reads a report: its JSON, that compressed by gzip, or a mail that has either. Of the input it takes 16 MiB at most,
// of JSON 10 MiB, and nothing that is compressed to less than a hundredth. An error is r's, or wraps ErrNoReport.
func Read(r io.Reader) (*Report, error) {
	in, err := io.ReadAll(io.LimitReader(r, maxInput+1))
	switch {
	case err != nil:
		return nil, err
	case len(in) > maxInput:
		return nil, fmt.Errorf("%w: it is larger than %d MiB", ErrNoReport, maxInput>>20)
	}
	begin := bytes.TrimLeft(bytes.TrimPrefix(in, []byte("\ufeff")), " \t\r\n")
	switch {
	case bytes.HasPrefix(in, gzipMagic):
		return unpack(in)
	case bytes.HasPrefix(begin, []byte("{")):
		return plain(in)
	}
	return fromMail(in)
}

var gzipMagic = []byte{0x1f, 0x8b}

// plain reads JSON that is not compressed.
func plain(text []byte) (*Report, error) {
	if len(text) > maxJSON {
		return nil, fmt.Errorf("%w: its JSON is larger than %d MiB", ErrNoReport, maxJSON>>20)
	}
	return parse(text)
}

// unpack reads JSON that is compressed.
func unpack(in []byte) (*Report, error) {
	zr, err := gzip.NewReader(bytes.NewReader(in))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoReport, err)
	}
	zr.Multistream(false)
	most := min(maxJSON, maxRatio*len(in))
	text, err := io.ReadAll(io.LimitReader(zr, int64(most)+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrNoReport, err)
	case len(text) > most:
		return nil, fmt.Errorf("%w: unpacked it is larger than %d times its size, or %d MiB", ErrNoReport, maxRatio, maxJSON>>20)
	}
	return parse(text)
}

// fromMail reads the report that a mail brings (RFC 8460, 5.3).
func fromMail(in []byte) (*Report, error) {
	structure, err := mime.Scan(bytes.NewReader(in))
	if err != nil {
		return nil, err
	}
	part := reportPart(&structure.Root)
	if part == nil {
		return nil, fmt.Errorf("%w: neither JSON, nor gzip, nor a mail with either", ErrNoReport)
	}
	body, _ := part.Decoded(bytes.NewReader(in[part.Body.Off:part.Body.End()]))
	content, err := io.ReadAll(io.LimitReader(body, maxInput))
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(content, gzipMagic) {
		return unpack(content)
	}
	return plain(content)
}

// reportPart finds the part of a message that is a report: by its type, or by its name where that says no more than that
// it is a file. It does not look into messages inside the message.
func reportPart(p *mime.Part) *mime.Part {
	if p.Type == "application" {
		switch name := strings.ToLower(fileName(p)); {
		case p.Subtype == "tlsrpt+gzip", p.Subtype == "tlsrpt+json":
			return p
		case strings.HasSuffix(name, ".json.gz"), strings.HasSuffix(name, ".json"):
			return p
		}
	}
	for i := range p.Parts {
		if found := reportPart(&p.Parts[i]); found != nil {
			return found
		}
	}
	return nil
}

func fileName(p *mime.Part) string {
	for _, param := range p.DispositionParams {
		if param.Name == "filename" {
			return param.Value
		}
	}
	return p.Param("name")
}
