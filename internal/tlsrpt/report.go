package tlsrpt

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Report is what a sender tells a domain of a day's sessions, in the form that RFC 8460, 4.4 gives it. What was read from
// others may be anything that fits: texts are as they came.
type Report struct {
	Organization string         `json:"organization-name,omitempty"`
	Range        Range          `json:"date-range"`
	Contact      string         `json:"contact-info,omitempty"`
	ID           string         `json:"report-id"`
	Policies     []PolicyReport `json:"policies"`
}

// Range is the time that a report is about.
type Range struct {
	Start time.Time `json:"start-datetime"`
	End   time.Time `json:"end-datetime"`
}

// PolicyReport is what the sessions under one policy showed.
type PolicyReport struct {
	Policy   ReportedPolicy `json:"policy"`
	Summary  Summary        `json:"summary"`
	Failures []Detail       `json:"failure-details,omitempty"`
}

// ReportedPolicy is Policy in a report.
type ReportedPolicy struct {
	Type    PolicyType `json:"policy-type"`
	Strings texts      `json:"policy-string,omitempty"`
	Domain  string     `json:"policy-domain,omitempty"`
	MX      texts      `json:"mx-host,omitempty"`
}

// Summary counts sessions.
type Summary struct {
	Successful int64 `json:"total-successful-session-count"`
	Failed     int64 `json:"total-failure-session-count"`
}

// Detail is one kind of failure between two hosts.
type Detail struct {
	Type        Failure `json:"result-type"`
	SendingIP   string  `json:"sending-mta-ip,omitempty"`
	MX          string  `json:"receiving-mx-hostname,omitempty"`
	Helo        string  `json:"receiving-mx-helo,omitempty"`
	ReceivingIP string  `json:"receiving-ip,omitempty"`
	Count       int64   `json:"failed-session-count"`
	Information string  `json:"additional-information,omitempty"`
	Reason      string  `json:"failure-reason-code,omitempty"`
}

// Sum adds up what a report says.
func (r *Report) Sum() (s Summary) {
	for _, p := range r.Policies {
		s.Successful += p.Summary.Successful
		s.Failed += p.Summary.Failed
	}
	return s
}

// compressed is the report in JSON, compressed.
func (r *Report) compressed() ([]byte, error) {
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if err := json.NewEncoder(w).Encode(r); err != nil {
		return nil, err
	}
	err := w.Close()
	return b.Bytes(), err
}

// texts is a list that some write as a single text.
type texts []string

// UnmarshalJSON reads either form.
func (t *texts) UnmarshalJSON(b []byte) error {
	var one string
	if json.Unmarshal(b, &one) == nil {
		*t = texts{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(t))
}

// ErrNoReport means that something is not a TLS report, or none that anybody needs to read.
var ErrNoReport = errors.New("not a TLS report")

// Bounds on the JSON of a report.
const (
	maxJSON    = 10 << 20
	maxObjects = 20_000
	maxValues  = 100_000
)

// parse reads the JSON of a report.
func parse(text []byte) (*Report, error) {
	text = bytes.TrimPrefix(text, []byte("\ufeff"))
	if objects, values := weigh(text); objects > maxObjects || values > maxValues {
		return nil, fmt.Errorf("%w: it has more than %d parts", ErrNoReport, maxObjects)
	}
	var r Report
	if err := json.Unmarshal(text, &r); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNoReport, err)
	}
	if len(r.Policies) == 0 {
		return nil, fmt.Errorf("%w: it has no policies", ErrNoReport)
	}
	return &r, nil
}

// weigh counts what would take memory.
func weigh(text []byte) (objects, values int) {
	inside, escaped := false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case inside && c == '\\':
			escaped = true
		case c == '"':
			inside = !inside
		case inside:
		case c == '{':
			objects++
		case c == ',':
			values++
		}
	}
	return objects, values
}
