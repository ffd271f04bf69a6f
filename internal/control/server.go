package control

import (
	"context"
	"errors"
	"iter"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// An operation is a method of the service as it is called over the socket: in holds
// its argument and what follows. It returns the result and the error of the last
// frame.
type operation func(ctx context.Context, in *frameReader, out *frameWriter) (any, error)

// operations are the service's methods by name.
func operations(s Service) map[string]operation {
	return map[string]operation{
		"Status":            call(func(ctx context.Context, _ none) (Status, error) { return s.Status(ctx) }),
		"Check":             long(func(ctx context.Context, _ none, p func(Progress)) (CheckReport, error) { return s.Check(ctx, p) }),
		"Compact":           call(func(ctx context.Context, _ none) (Compacted, error) { return s.Compact(ctx) }),
		"Domains":           call(func(ctx context.Context, _ none) ([]Domain, error) { return s.Domains(ctx) }),
		"AddDomain":         call(s.AddDomain),
		"RemoveDomain":      do(s.RemoveDomain),
		"Accounts":          list(s.Accounts),
		"Account":           call(s.Account),
		"AddAccount":        call(s.AddAccount),
		"SetPassword":       do(s.SetPassword),
		"SetDisabled":       do(s.SetDisabled),
		"SetAccount":        call(s.SetAccount),
		"AppPasswords":      call(s.AppPasswords),
		"AddAppPassword":    call(s.AddAppPassword),
		"RevokeAppPassword": do(s.RevokeAppPassword),
		"RemoveAccount":     do(s.RemoveAccount),
		"Aliases":           list(s.Aliases),
		"AddAlias":          call(s.AddAlias),
		"RemoveAlias":       do(s.RemoveAlias),
		"Bans":              list(func(ctx context.Context, _ none) iter.Seq2[Ban, error] { return s.Bans(ctx) }),
		"AddBan":            call(s.AddBan),
		"RemoveBan":         do(s.RemoveBan),
		"TLSDomains":        list(func(ctx context.Context, _ none) iter.Seq2[DomainTLS, error] { return s.TLSDomains(ctx) }),
		"TLSDomain":         call(s.TLSDomain),
		"ForgetTLS":         do(s.ForgetTLS),
		"Webhooks":          list(func(ctx context.Context, _ none) iter.Seq2[Webhook, error] { return s.Webhooks(ctx) }),
		"TestWebhook":       call(s.TestWebhook),
		"Certificates":      list(func(ctx context.Context, _ none) iter.Seq2[Certificate, error] { return s.Certificates(ctx) }),
		"RenewCertificate":  do(s.RenewCertificate),
		"DKIMKeys":          list(s.DKIMKeys),
		"AddDKIMKeys":       call(s.AddDKIMKeys),
		"ImportDKIMKey":     call(s.ImportDKIMKey),
		"RotateDKIMKeys":    call(s.RotateDKIMKeys),
		"CheckDKIMKeys":     call(s.CheckDKIMKeys),
		"ActivateDKIMKeys":  call(s.ActivateDKIMKeys),
		"RemoveDKIMKeys":    do(s.RemoveDKIMKeys),
		"Queue":             list(s.Queue),
		"QueueEntry":        call(s.QueueEntry),
		"RetryQueue":        call(s.RetryQueue),
		"HoldQueue":         call(s.HoldQueue),
		"ReleaseQueue":      call(s.ReleaseQueue),
		"RemoveQueue":       call(s.RemoveQueue),
		"ExpireQueue":       call(s.ExpireQueue),
		"BounceQueue":       call(s.BounceQueue),
		"RerouteQueue":      call(s.RerouteQueue),
		"EditQueue":         call(s.EditQueue),
		"ExplainQueue":      call(s.ExplainQueue),
		"Mailboxes":         call(s.Mailboxes),
		"CreateMailbox":     call(s.CreateMailbox),
		"RenameMailbox":     do(s.RenameMailbox),
		"RemoveMailbox":     do(s.RemoveMailbox),
		"Shares":            call(s.Shares),
		"ShareMailbox":      call(s.ShareMailbox),
		"Index":             list(s.Index),
		"RebuildIndex":      long(s.RebuildIndex),
		"Messages":          list(s.Messages),
		"ReadMessage":       readMessage(s),
		"Import":            importMessages(s),
		"Trace":             list(s.Trace),

		"AliasDomain":       call(s.AliasDomain),
		"RemoveDomainAlias": do(s.RemoveDomainAlias),
		"Forwards":          list(s.Forwards),
		"AddForward":        call(s.AddForward),
		"RemoveForward":     call(s.RemoveForward),
		"Delegations":       list(func(ctx context.Context, _ none) iter.Seq2[Delegation, error] { return s.Delegations(ctx) }),
		"Delegate":          call(s.Delegate),
		"Undelegate":        do(s.Undelegate),
		"Lists":             list(s.Lists),
		"List":              call(s.List),
		"AddList":           call(s.AddList),
		"SetList":           call(s.SetList),
		"RemoveList":        do(s.RemoveList),
		"Members":           list(s.Members),
		"AddMembers":        call(s.AddMembers),
		"RemoveMembers":     call(s.RemoveMembers),

		"Destinations":       list(s.Destinations),
		"SuspendDestination": call(s.SuspendDestination),
		"ResumeDestination":  call(s.ResumeDestination),
		"ForgetDestination":  do(s.ForgetDestination),
		"Probe":              call(s.Probe),
		"HoldRules":          list(func(ctx context.Context, _ none) iter.Seq2[HoldRule, error] { return s.HoldRules(ctx) }),
		"AddHoldRule":        call(s.AddHoldRule),
		"RemoveHoldRule":     do(s.RemoveHoldRule),
		"Suppressions":       list(s.Suppressions),
		"AddSuppression":     call(s.AddSuppression),
		"RemoveSuppression":  do(s.RemoveSuppression),
	}
}

// none is the argument of a method without one, and the result of one that has only
// an error.
type none struct{}

// argument reads a method's argument.
func argument[A any](in *frameReader) (a A, err error) {
	if err := in.read(&a); err != nil {
		return a, Errorf(Invalid, "read the request: %v", err)
	}
	return a, nil
}

// call offers a method with a result.
func call[A, R any](method func(context.Context, A) (R, error)) operation {
	return func(ctx context.Context, in *frameReader, _ *frameWriter) (any, error) {
		a, err := argument[A](in)
		if err != nil {
			return nil, err
		}
		return method(ctx, a)
	}
}

// do offers a method without a result.
func do[A any](method func(context.Context, A) error) operation {
	return call(func(ctx context.Context, a A) (none, error) { return none{}, method(ctx, a) })
}

// long offers a method that tells how far it is.
func long[A, P, R any](method func(context.Context, A, func(P)) (R, error)) operation {
	return func(ctx context.Context, in *frameReader, out *frameWriter) (any, error) {
		a, err := argument[A](in)
		if err != nil {
			return nil, err
		}
		return method(ctx, a, func(p P) { _ = out.progress(p) }) // a caller that left cancels ctx
	}
}

// list offers a method that yields values.
func list[A, R any](method func(context.Context, A) iter.Seq2[R, error]) operation {
	return func(ctx context.Context, in *frameReader, out *frameWriter) (any, error) {
		a, err := argument[A](in)
		if err != nil {
			return nil, err
		}
		for v, err := range method(ctx, a) {
			if err != nil {
				return nil, err
			}
			if err := out.item(v); err != nil {
				return nil, err
			}
		}
		return none{}, nil
	}
}

func readMessage(s Service) operation {
	return func(ctx context.Context, in *frameReader, out *frameWriter) (any, error) {
		name, err := argument[MessageName](in)
		if err != nil {
			return nil, err
		}
		return none{}, s.ReadMessage(ctx, name, out)
	}
}

func importMessages(s Service) operation {
	return func(ctx context.Context, in *frameReader, out *frameWriter) (any, error) {
		to, err := argument[MailboxName](in)
		if err != nil {
			return nil, err
		}
		return s.Import(ctx, to, receive(in), func(p Imported) { _ = out.progress(p) })
	}
}

// Serve offers svc at a socket that Listen made. It returns nil when l was closed,
// after the calls under way were cancelled and have ended.
func Serve(l net.Listener, svc Service) error {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	h := &handler{operations: operations(svc)}
	srv := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       callerOf,
	}
	srv.SetKeepAlivesEnabled(false) // a connection is cheap here, and what is left of a refused import stays on its own
	err := srv.Serve(l)
	cancel()
	srv.Close() // calls that wait for their caller to read or write end here
	h.calls.Wait()
	if errors.Is(err, net.ErrClosed) || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

func callerOf(ctx context.Context, c net.Conn) context.Context {
	if a, ok := c.(admitted); ok {
		return WithCaller(ctx, a.uid)
	}
	return ctx
}

// pathPrefix is where the operations live. A client of another version gets
// "not found" instead of half an answer.
const pathPrefix = "/postroad/1/"

type handler struct {
	operations map[string]operation
	calls      sync.WaitGroup
}

// ServeHTTP answers one call.
func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.calls.Add(1)
	defer h.calls.Done()
	if r.URL.Path == pathPrefix+"Import" {
		// Progress is told while messages still come in.
		_ = http.NewResponseController(w).EnableFullDuplex()
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := newFrameWriter(w)
	_ = out.flush() // the caller knows now that somebody is there, however long the work takes
	result, err := h.run(r, out)
	last := frame{Done: true, Error: asError(err)}
	if result != nil {
		last.Result = raw(result)
	}
	_ = out.write(last)
}

func (h *handler) run(r *http.Request, out *frameWriter) (any, error) {
	name, ok := strings.CutPrefix(r.URL.Path, pathPrefix)
	op := h.operations[name]
	if !ok || op == nil || r.Method != http.MethodPost {
		return nil, Errorf(Invalid, "the server does not know %s %s", r.Method, r.URL.Path).
			WithHint("is the server of the same version as this command?")
	}
	return op(r.Context(), newFrameReader(r.Body), out)
}
