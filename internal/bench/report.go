package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// A Report is what a run measured.
type Report struct {
	Kind       string       `json:"kind"` // smtp, e2e, relay, sink or imap
	Addr       string       `json:"addr"`
	Started    time.Time    `json:"started"`
	Seconds    float64      `json:"seconds"` // of the main phase
	Conditions []string     `json:"conditions"`
	Rows       []Row        `json:"rows"`
	Counts     []Count      `json:"counts"`
	Usage      *Usage       `json:"usage,omitempty"`
	Errors     []ErrorCount `json:"errors,omitempty"`   // most frequent first
	LeftOut    []string     `json:"left_out,omitempty"` // rows that were not measured, and why
}

// A Row is one timed thing: how often, how fast, how long each took.
type Row struct {
	Name        string   `json:"name"`
	Count       int64    `json:"count"`
	PerSecond   float64  `json:"per_second,omitempty"`
	MBPerSecond float64  `json:"mb_per_second,omitempty"` // 1,000,000 octets
	Latency     *Latency `json:"latency,omitempty"`
	ServerCPU   float64  `json:"server_cpu_ms,omitempty"` // per repetition
}

// A Count is a number with a name.
type Count struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

// An ErrorCount is how often the server, or the connection to it, said no.
type ErrorCount struct {
	Where  string `json:"where"` // the command and the reply code, or "connection"
	Count  int64  `json:"count"`
	Sample string `json:"sample"` // the first of them in full
}

func newReport(kind, addr string, conditions []string) Report {
	return Report{Kind: kind, Addr: addr, Started: time.Now(), Conditions: conditions}
}

// WriteJSON writes the report as one indented JSON object.
func (r *Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

// WriteText writes the report as a table for people.
func (r *Report) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s, %.1f s: %s\n\n", r.Kind, r.Addr, r.Seconds, strings.Join(r.Conditions, ", "))
	r.table(&b)
	b.WriteByte('\n')
	for i, c := range r.Counts {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %d", c.Name, c.Value)
	}
	b.WriteByte('\n')
	r.Usage.text(&b)
	for _, e := range r.Errors {
		fmt.Fprintf(&b, "error: %s, %d times, first: %s\n", e.Where, e.Count, e.Sample)
	}
	for _, why := range r.LeftOut {
		fmt.Fprintf(&b, "left out: %s\n", why)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Report) table(b *strings.Builder) {
	t := tabwriter.NewWriter(b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "count\t/s\tMB/s\tbest ms\tp50\tp90\tp99\tmax\tcpu ms\t\n")
	for _, row := range r.Rows {
		l := row.Latency
		if l == nil {
			l = new(Latency)
		}
		fmt.Fprintf(t, "%d\t", row.Count)
		for _, v := range []float64{row.PerSecond, row.MBPerSecond, l.Best, l.P50, l.P90, l.P99, l.Max, row.ServerCPU} {
			fmt.Fprintf(t, "%s\t", short(v))
		}
		fmt.Fprintf(t, "\x00%s\n", row.Name)
	}
	t.Flush()
	s := strings.ReplaceAll(b.String(), "\x00", "  ")
	b.Reset()
	b.WriteString(s)
}

// short is v with three significant digits, or a dash for nothing.
func short(v float64) string {
	switch {
	case v == 0:
		return "-"
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case v >= 1:
		return strconv.FormatFloat(v, 'f', 2, 64)
	}
	return strconv.FormatFloat(v, 'f', 3, 64)
}

func plural(n int, word string, more ...string) string {
	switch {
	case n == 1:
		return "1 " + word
	case len(more) > 0:
		return strconv.Itoa(n) + " " + more[0]
	}
	return strconv.Itoa(n) + " " + word + "s"
}

// errorCounts counts errors by what they have in common. The zero value is empty.
type errorCounts struct {
	byKey map[string]*ErrorCount
	order []string
}

const maxErrorKinds = 100 // a server that invents reply codes must not fill memory

func (e *errorCounts) add(err error) {
	e.sum(ErrorCount{Where: errorKey(err), Count: 1, Sample: err.Error()})
}

func (e *errorCounts) sum(c ErrorCount) {
	if known := e.byKey[c.Where]; known != nil {
		known.Count += c.Count
		return
	}
	if len(e.order) == maxErrorKinds {
		return
	}
	if e.byKey == nil {
		e.byKey = map[string]*ErrorCount{}
	}
	e.byKey[c.Where] = &c
	e.order = append(e.order, c.Where)
}

func (e *errorCounts) merge(o *errorCounts) {
	for _, key := range o.order {
		e.sum(*o.byKey[key])
	}
}

func (e *errorCounts) list() []ErrorCount {
	var all []ErrorCount
	for _, key := range e.order {
		all = append(all, *e.byKey[key])
	}
	slices.SortStableFunc(all, func(a, b ErrorCount) int { return int(b.Count - a.Count) })
	return all
}

func (e *errorCounts) first() string {
	if len(e.order) == 0 {
		return "no reason was given"
	}
	return e.byKey[e.order[0]].Sample
}
