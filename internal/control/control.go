// Package control is the administrator's way in: every operation is one method of
// Service. A running server offers its Service on a unix socket in the data
// directory; a Client is the same Service at the other end of that socket.
//
// What is promised: the socket is for the server's own user and root only, whatever
// the modes of the directories above it. A call gives the same values and the same
// errors over the socket as in process. A reply that was cut off is an error, never
// a short list.
package control

import (
	"context"
	"encoding/json"
	"io"
	"iter"
	"time"
)

// Service is all that an administrator can do. Errors are of type *Error; texts are
// valid UTF-8.
type Service interface {
	// Status tells how the server or the data directory is.
	Status(ctx context.Context) (Status, error)
	// Check reads everything that is stored and reports what is wrong. progress, if
	// not nil, is called now and then.
	Check(ctx context.Context, progress func(Progress)) (CheckReport, error)
	// Compact gives the space of removed messages back to the disk.
	Compact(ctx context.Context) (Compacted, error)

	// Domains lists the domains whose mail ends here.
	Domains(ctx context.Context) ([]Domain, error)
	AddDomain(ctx context.Context, name string) (Domain, error)
	// RemoveDomain removes a domain without accounts, aliases and lists, of which no other is an alias.
	RemoveDomain(ctx context.Context, name string) error
	// AliasDomain makes a domain another name of one of ours; RemoveDomainAlias takes that back.
	AliasDomain(ctx context.Context, a DomainAlias) (Domain, error)
	RemoveDomainAlias(ctx context.Context, name string) error

	// Accounts lists the accounts of a domain; of all domains when it is empty.
	Accounts(ctx context.Context, domain string) iter.Seq2[Account, error]
	// Account returns one account with its use.
	Account(ctx context.Context, address string) (Account, error)
	// AddAccount makes an account with the mailboxes that every account has.
	AddAccount(ctx context.Context, a NewAccount) (Account, error)
	SetPassword(ctx context.Context, c Credential) error
	// SetDisabled says whether the account may log in; its mail still arrives.
	SetDisabled(ctx context.Context, c SetDisabled) error
	// SetAccount changes an account's settings and returns the account.
	SetAccount(ctx context.Context, c SetAccount) (Account, error)
	// AppPasswords lists an account's app passwords, oldest first.
	AppPasswords(ctx context.Context, address string) ([]AppPassword, error)
	// AddAppPassword gives an account one more password, which is made up and shown this once.
	AddAppPassword(ctx context.Context, n NewAppPassword) (MadeAppPassword, error)
	// RevokeAppPassword takes one back and ends the account's sessions.
	RevokeAppPassword(ctx context.Context, n AppPasswordName) error
	// RemoveAccount removes an account with all its mail, for good.
	RemoveAccount(ctx context.Context, address string) error

	// Aliases lists the aliases of a domain; of all domains when it is empty.
	Aliases(ctx context.Context, domain string) iter.Seq2[Alias, error]
	// AddAlias adds targets to an alias, which is made when it is not there. The
	// address "@domain" catches what has no account or alias of its own.
	AddAlias(ctx context.Context, a Alias) (Alias, error)
	// RemoveAlias takes targets from an alias; without targets, all of it.
	RemoveAlias(ctx context.Context, a Alias) error

	// Bans lists the networks that are kept out.
	Bans(ctx context.Context) iter.Seq2[Ban, error]
	// AddBan keeps a network out, in place of a ban of it that there is.
	AddBan(ctx context.Context, b NewBan) (Ban, error)
	// RemoveBan lets a network in again; it is named as Bans lists it.
	RemoveBan(ctx context.Context, network string) error

	// TLSDomains lists the domains of whose TLS something is known; TLSDomain tells of one.
	TLSDomains(ctx context.Context) iter.Seq2[DomainTLS, error]
	TLSDomain(ctx context.Context, domain string) (DomainTLS, error)
	// ForgetTLS drops what is known of a domain's TLS.
	ForgetTLS(ctx context.Context, domain string) error

	// Webhooks lists the applications that the running server tells of events.
	Webhooks(ctx context.Context) iter.Seq2[Webhook, error]
	// TestWebhook posts a sample event, now and once, and returns the answer.
	TestWebhook(ctx context.Context, name string) (WebhookAnswer, error)

	// Certificates lists the certificates that the running server shows; the first to clients that name none of them.
	Certificates(ctx context.Context) iter.Seq2[Certificate, error]
	// RenewCertificate obtains another certificate for a name that the server obtains one for.
	RenewCertificate(ctx context.Context, name string) error

	// Forwards lists the accounts of a domain that send their mail on; of all domains when it is empty.
	Forwards(ctx context.Context, domain string) iter.Seq2[Forward, error]
	// AddForward adds targets to where an account's mail is sent on; Keep, unless nil, says whether the account gets a
	// copy. RemoveForward takes targets away; without targets, all of them.
	AddForward(ctx context.Context, f Forward) (Forward, error)
	RemoveForward(ctx context.Context, f Forward) (Forward, error)

	// DKIMKeys lists the DKIM keys of a domain; of all domains when it is empty.
	DKIMKeys(ctx context.Context, domain string) iter.Seq2[DKIMKey, error]
	// AddDKIMKeys makes keys, which sign once the DNS has their records. ImportDKIMKey takes over one that another
	// program has made. RotateDKIMKeys makes those that take the place of a domain's keys.
	AddDKIMKeys(ctx context.Context, n NewDKIMKeys) ([]DKIMKey, error)
	ImportDKIMKey(ctx context.Context, i DKIMImport) (DKIMKey, error)
	RotateDKIMKeys(ctx context.Context, domain string) ([]DKIMKey, error)
	// CheckDKIMKeys looks for the records of a domain's keys now, of all when it is empty.
	CheckDKIMKeys(ctx context.Context, domain string) ([]DKIMKey, error)
	// ActivateDKIMKeys lets keys sign that wait. RemoveDKIMKeys drops keys at once; what they signed is worth nothing
	// when their records go too.
	ActivateDKIMKeys(ctx context.Context, n DKIMKeyName) ([]DKIMKey, error)
	RemoveDKIMKeys(ctx context.Context, n DKIMKeyName) error

	// Delegations lists who may send as an address that is not its own.
	Delegations(ctx context.Context) iter.Seq2[Delegation, error]
	Delegate(ctx context.Context, d Delegation) (Delegation, error)
	Undelegate(ctx context.Context, d Delegation) error

	// Lists lists the lists of a domain; of all domains when it is empty.
	Lists(ctx context.Context, domain string) iter.Seq2[List, error]
	List(ctx context.Context, address string) (List, error)
	// AddList makes a list with members.
	AddList(ctx context.Context, l NewList) (List, error)
	// SetList changes a list's settings and returns the list.
	SetList(ctx context.Context, l SetList) (List, error)
	// RemoveList removes a list with its members; who they are is lost.
	RemoveList(ctx context.Context, address string) error
	Members(ctx context.Context, address string) iter.Seq2[Member, error]
	// AddMembers and RemoveMembers change all or nothing.
	AddMembers(ctx context.Context, m ListMembers) (List, error)
	RemoveMembers(ctx context.Context, m ListMembers) (List, error)

	// Queue lists messages with the recipients that the filter chose, oldest first.
	Queue(ctx context.Context, f QueueFilter) iter.Seq2[QueueEntry, error]
	// QueueEntry returns one message with all recipients that are not settled.
	QueueEntry(ctx context.Context, id string) (QueueEntry, error)
	// RetryQueue makes recipients due now, HoldQueue keeps them until ReleaseQueue,
	// RemoveQueue takes them out for good and tells nobody but the trace.
	RetryQueue(ctx context.Context, f QueueFilter) (Changed, error)
	HoldQueue(ctx context.Context, h HoldQueue) (Changed, error)
	ReleaseQueue(ctx context.Context, f QueueFilter) (Changed, error)
	RemoveQueue(ctx context.Context, f QueueFilter) (Changed, error)
	// ExpireQueue gives recipients up as if their time had ended, BounceQueue returns them with words; both tell the senders.
	ExpireQueue(ctx context.Context, f QueueFilter) (Changed, error)
	BounceQueue(ctx context.Context, b BounceQueue) (Changed, error)
	// RerouteQueue sends recipients by another route, and makes those due that are not on hold.
	RerouteQueue(ctx context.Context, r RerouteQueue) (Changed, error)
	// EditQueue changes what messages need of TLS.
	EditQueue(ctx context.Context, e EditQueue) (Changed, error)
	// ExplainQueue says why the recipients of a message are not yet delivered.
	ExplainQueue(ctx context.Context, id string) (Explanation, error)

	// Destinations lists those of which something is known, or one of them: those that are suspended, and with a running
	// server those that are tried or were in trouble lately.
	Destinations(ctx context.Context, name string) iter.Seq2[Destination, error]
	// SuspendDestination stops all attempts at a destination until ResumeDestination, which makes its mail due.
	SuspendDestination(ctx context.Context, s SuspendDestination) (Destination, error)
	ResumeDestination(ctx context.Context, name string) (Changed, error)
	// ForgetDestination forgets what a running server has learned of a destination, and tries it anew.
	ForgetDestination(ctx context.Context, name string) error

	// Probe finds out what sending mail somewhere would meet, without sending any.
	Probe(ctx context.Context, q ProbeQuery) (Probe, error)

	// HoldRules lists the rules by which new mail is put on hold. RemoveHoldRule removes one by its number; what it holds
	// stays on hold.
	HoldRules(ctx context.Context) iter.Seq2[HoldRule, error]
	AddHoldRule(ctx context.Context, h HoldRule) (HoldRule, error)
	RemoveHoldRule(ctx context.Context, number uint64) error

	// Suppressions lists the addresses that an account's mail is not sent to; of all accounts when it is empty.
	Suppressions(ctx context.Context, account string) iter.Seq2[Suppression, error]
	AddSuppression(ctx context.Context, n NewSuppression) (Suppression, error)
	// RemoveSuppression lets the Account's mail go to Address again.
	RemoveSuppression(ctx context.Context, s Suppression) error

	// Mailboxes lists the mailboxes of an account.
	Mailboxes(ctx context.Context, account string) ([]Mailbox, error)
	CreateMailbox(ctx context.Context, m MailboxName) (Mailbox, error)
	RenameMailbox(ctx context.Context, r RenameMailbox) error
	// RemoveMailbox removes a mailbox with its messages, for good.
	RemoveMailbox(ctx context.Context, m MailboxName) error
	// Shares lists who may do what with a mailbox, its owner included.
	Shares(ctx context.Context, m MailboxName) ([]Share, error)
	// ShareMailbox says what somebody else may do with a mailbox, in place of what was said
	// before, and returns the rights. Without rights it is no longer shared with them.
	ShareMailbox(ctx context.Context, s ShareMailbox) (Share, error)

	// Index tells how far the full-text index of each mailbox of an account is; of all accounts when it is empty.
	Index(ctx context.Context, account string) iter.Seq2[IndexedMailbox, error]
	// RebuildIndex makes the full-text index of an account's mailboxes again, or of all accounts'. Searches need longer
	// meanwhile. progress, if not nil, is called now and then.
	RebuildIndex(ctx context.Context, account string, progress func(Progress)) (Reindexed, error)

	// Messages lists the messages of a mailbox in order of UID.
	Messages(ctx context.Context, l MessageList) iter.Seq2[Message, error]
	// ReadMessage writes a message's octets as they are stored to w.
	ReadMessage(ctx context.Context, m MessageName, w io.Writer) error
	// Import stores messages in a mailbox, in order, and returns how many, also with
	// an error: what was imported before it stays. progress, if not nil, is called
	// now and then.
	Import(ctx context.Context, to MailboxName, messages iter.Seq2[ImportMessage, error], progress func(Imported)) (Imported, error)

	// Trace tells the lives of messages, the newest first.
	Trace(ctx context.Context, q TraceQuery) iter.Seq2[Life, error]
}

// Status is how a server, or a data directory without one, is.
type Status struct {
	Version   string            `json:"version"`
	Running   bool              `json:"running"` // a server answers; false: the command opened the directory
	Hostname  string            `json:"hostname,omitempty"`
	Data      string            `json:"data"`
	PID       int               `json:"pid,omitempty"`
	Started   time.Time         `json:"started,omitzero"`
	Uptime    float64           `json:"uptime_seconds"`
	Listeners map[string]string `json:"listeners,omitempty"` // by name, those that are open
	Queue     QueueCounts       `json:"queue"`
	Store     StoreStats        `json:"store"`
	Suspended []Destination     `json:"suspended_destinations,omitempty"`
	Trouble   []Destination     `json:"destinations_in_trouble,omitempty"` // the worst, at most 20
	Spent     []string          `json:"accounts_at_daily_limit,omitempty"` // at most 20
	Bans      int               `json:"bans"`                              // networks that are kept out
	Troubled  []Certificate     `json:"certificates_in_trouble,omitempty"` // those that have expired, or are not renewed
	DKIM      DKIMStatus        `json:"dkim"`
	Failed    string            `json:"failed,omitempty"` // why the store refuses writes
}

// DKIMStatus tells whose mail is signed.
type DKIMStatus struct {
	Signing  int      `json:"signing"`            // domains whose mail is signed
	Unsigned []string `json:"unsigned,omitempty"` // without any key, at most 20
	Waiting  []string `json:"waiting,omitempty"`  // with keys of which none signs yet, at most 20
	Trouble  []string `json:"trouble,omitempty"`  // what needs a person, at most 20
}

// QueueCounts are the recipients in the queue by state.
type QueueCounts struct {
	Messages int64 `json:"messages"`
	Active   int64 `json:"active"`
	Deferred int64 `json:"deferred"`
	Hold     int64 `json:"hold"`
}

// StoreStats are figures of the store. Commits, updates and flushes are those since
// it was opened.
type StoreStats struct {
	Bodies      int64  `json:"bodies"`
	LiveOctets  int64  `json:"live_octets"`
	DeadOctets  int64  `json:"dead_octets"`
	Segments    int    `json:"segments"`
	IndexOctets int64  `json:"index_octets"`
	FreeOctets  int64  `json:"free_octets"`
	Commits     uint64 `json:"commits"`
	Updates     uint64 `json:"updates"`
	Flushes     uint64 `json:"flushes"`
}

// Progress is how far long work has come.
type Progress struct {
	What  string `json:"what"`
	Done  int64  `json:"done"`
	Total int64  `json:"total"` // 0 when not known
}

// CheckReport is what Check saw.
type CheckReport struct {
	Bodies   int64     `json:"bodies"`
	Octets   int64     `json:"octets"`
	Segments int       `json:"segments"`
	Keys     int64     `json:"keys"`
	Problems []Problem `json:"problems"`
}

// Problem is one thing that Check found wrong.
type Problem struct {
	What string `json:"what"`
	Text string `json:"text"`
}

// IndexedMailbox is a mailbox and how far its full-text index is. What is not in the index a search looks at itself, as
// it does in mailboxes that are too small for one.
type IndexedMailbox struct {
	Account     string `json:"account"`
	Mailbox     string `json:"mailbox"`
	Messages    uint64 `json:"messages"`
	Octets      int64  `json:"octets"`
	Indexed     uint64 `json:"indexed"` // messages
	Blocks      int    `json:"blocks"`
	IndexOctets int64  `json:"index_octets"`
}

// Reindexed is what RebuildIndex made.
type Reindexed struct {
	Mailboxes   int    `json:"mailboxes"`
	Indexed     uint64 `json:"indexed"` // messages
	IndexOctets int64  `json:"index_octets"`
}

// Compacted is what Compact gave back.
type Compacted struct {
	Octets int64 `json:"octets"`
}

// Domain is a domain whose mail ends here.
type Domain struct {
	Name     string    `json:"name"`
	Created  time.Time `json:"created"`
	Accounts int       `json:"accounts"`
	Aliases  int       `json:"aliases"`
	Lists    int       `json:"lists"`
	Alias    string    `json:"alias_of,omitempty"` // the domain that this one is another name of
}

// Account is an account and what it uses.
type Account struct {
	ID          uint64    `json:"id"`
	Address     string    `json:"address"`
	Disabled    bool      `json:"disabled"`
	Admin       bool      `json:"admin"`                        // may set quotas over IMAP
	AppOnly     bool      `json:"app_passwords_only,omitempty"` // its own password opens nothing
	Created     time.Time `json:"created"`
	Quota       int64     `json:"quota"`        // octets; 0 is no limit
	MaxMessages int64     `json:"max_messages"` // 0 is no limit
	Octets      int64     `json:"octets"`
	Messages    int64     `json:"messages"`
	Hidden      []string  `json:"hidden_capabilities,omitempty"` // of IMAP

	SaveSent string `json:"save_sent,omitempty"` // "on", "off"; empty is as configured
	// Daily is what was set for this account; what is nil is as configured, and 0 is no limit.
	Daily     DailyLimits `json:"daily_limits,omitzero"`
	DailyMost SentToday   `json:"daily_limits_in_force"` // what counts for it now; 0 is no limit
	SentToday SentToday   `json:"sent_today"`
}

// DailyLimits are what an account may send in a day, which begins at 00:00 UTC.
type DailyLimits struct {
	Messages   *int64 `json:"messages,omitempty"`
	Recipients *int64 `json:"recipients,omitempty"`
	New        *int64 `json:"new_recipients,omitempty"` // addresses in domains of others that it has not written to before
}

// SentToday is what an account has sent since 00:00 UTC, as far as it has limits.
type SentToday struct {
	Messages   int64 `json:"messages"`
	Recipients int64 `json:"recipients"`
	New        int64 `json:"new_recipients"`
}

// NewAccount is an account to be made.
type NewAccount struct {
	Address  string `json:"address"`
	Password string `json:"password"`
	Quota    int64  `json:"quota,omitempty"`
	// MaxMessages is how many messages the account may hold; 0 is no limit.
	MaxMessages int64 `json:"max_messages,omitempty"`
}

// Credential is an address and a password.
type Credential struct {
	Address  string `json:"address"`
	Password string `json:"password"`
}

// AppPassword is one more password of an account, without the password itself.
type AppPassword struct {
	Name      string    `json:"name"`
	Protocols []string  `json:"protocols"` // "imap", "smtp"
	Created   time.Time `json:"created"`
	Expires   time.Time `json:"expires,omitzero"`
	Expired   bool      `json:"expired,omitempty"`
	Used      time.Time `json:"used,omitzero"` // when somebody last logged in by it, to the minute
	UsedFrom  string    `json:"used_from,omitempty"`
	UsedFor   string    `json:"used_for,omitempty"` // a protocol
}

// NewAppPassword is an app password to be made.
type NewAppPassword struct {
	AppPasswordName
	Protocols []string `json:"protocols,omitempty"` // none is all
	Lifetime  Seconds  `json:"lifetime,omitempty"`  // 0 is for ever
}

// MadeAppPassword is an app password that was made.
type MadeAppPassword struct {
	AppPassword
	Password string `json:"password"`
}

// AppPasswordName names an app password.
type AppPasswordName struct {
	Address string `json:"address"`
	Name    string `json:"name"`
}

// SetDisabled says whether an account may log in.
type SetDisabled struct {
	Address  string `json:"address"`
	Disabled bool   `json:"disabled"`
}

// SetAccount changes an account's settings; what is nil stays.
type SetAccount struct {
	Address     string   `json:"address"`
	Quota       *int64   `json:"quota,omitempty"`        // octets; 0 is no limit
	MaxMessages *int64   `json:"max_messages,omitempty"` // 0 is no limit
	Admin       *bool    `json:"admin,omitempty"`
	AppOnly     *bool    `json:"app_passwords_only,omitempty"`
	Hide        []string `json:"hide_capabilities,omitempty"` // no longer told to IMAP clients
	Show        []string `json:"show_capabilities,omitempty"` // told again

	SaveSent *string     `json:"save_sent,omitempty"`   // "on", "off"; "" is as configured
	Daily    DailyLimits `json:"daily_limits,omitzero"` // 0 is no limit, AsConfigured takes back what was set
}

// AsConfigured in SetAccount makes a limit that was set for one account what it is for all.
const AsConfigured = -1

// Alias sends mail for an address elsewhere.
type Alias struct {
	Address string   `json:"address"` // "@domain" is the catch-all
	Targets []string `json:"targets"`
	Nowhere []string `json:"nowhere,omitempty"` // told by AddAlias: of the targets, addresses of ours that lead nowhere yet
}

// Certificate is one that the server shows, or is to obtain: then it has no issuer.
type Certificate struct {
	Names   []string  `json:"names"`
	Issuer  string    `json:"issuer,omitempty"`
	Until   time.Time `json:"until,omitzero"`
	Source  string    `json:"source"` // "file", "self-signed", or "acme" and an address
	File    string    `json:"file"`
	Trouble string    `json:"trouble,omitempty"` // why there is no newer one, when there should be
}

// Ban keeps a network out.
type Ban struct {
	Network string    `json:"network"` // an IPv4 address, or a network
	Since   time.Time `json:"since"`
	Until   time.Time `json:"until,omitzero"` // zero is until it is removed
	Reason  string    `json:"reason,omitempty"`
	Count   int       `json:"times"` // how often misbehaviour has earned it one
	By      string    `json:"by"`    // "gate" for misbehaviour, or "admin"
}

// NewBan is a ban to be made.
type NewBan struct {
	Network string  `json:"network"` // an address, or a network
	For     Seconds `json:"for,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

// DomainAlias makes a domain another name of one of ours.
type DomainAlias struct {
	Name string `json:"name"`
	Of   string `json:"of"`
}

// Forward sends an account's mail on.
type Forward struct {
	Account string   `json:"account"`
	Targets []string `json:"targets"`
	Keep    *bool    `json:"keep,omitempty"` // the account gets a copy
}

// Delegation lets an account send as an address, or as all of a domain.
type Delegation struct {
	As       string `json:"as"` // an address or "@domain"
	Delegate string `json:"delegate"`
}

// List is one address for many.
type List struct {
	Address string    `json:"address"`
	Owners  []string  `json:"owners"`
	Post    string    `json:"post"` // members, owners or anyone: who may write to it
	Title   string    `json:"title,omitempty"`
	Members int       `json:"members"`
	Created time.Time `json:"created"`
}

// NewList is a list to be made.
type NewList struct {
	Address string   `json:"address"`
	Owners  []string `json:"owners"`
	Post    string   `json:"post,omitempty"` // members when empty
	Title   string   `json:"title,omitempty"`
	Members []string `json:"members,omitempty"`
}

// SetList changes a list's settings; what is nil stays.
type SetList struct {
	Address string   `json:"address"`
	Owners  []string `json:"owners,omitempty"` // all of them
	Post    *string  `json:"post,omitempty"`
	Title   *string  `json:"title,omitempty"`
}

// ListMembers names members of a list.
type ListMembers struct {
	Address string   `json:"address"`
	Members []string `json:"members"`
}

// Member is a member of a list.
type Member struct {
	Address string `json:"address"`
}

// QueueFilter chooses recipients in the queue; empty fields choose all.
type QueueFilter struct {
	IDs         []string `json:"ids,omitempty"`
	Sender      string   `json:"sender,omitempty"`      // address or "@domain"
	Recipient   string   `json:"recipient,omitempty"`   // address or "@domain"
	Domain      string   `json:"domain,omitempty"`      // of the recipient
	Destination string   `json:"destination,omitempty"` // where it goes: a domain by DNS, or a route
	Account     string   `json:"account,omitempty"`     // who sent it, by address
	State       string   `json:"state,omitempty"`       // active, deferred, hold
	OlderThan   Seconds  `json:"older_than,omitempty"`
	YoungerThan Seconds  `json:"younger_than,omitempty"`
	Limit       int      `json:"limit,omitempty"` // messages to list; 0 is all
}

// Seconds is a duration that travels as a number of seconds.
type Seconds time.Duration

// MarshalJSON writes seconds.
func (s Seconds) MarshalJSON() ([]byte, error) { return json.Marshal(time.Duration(s).Seconds()) }

// UnmarshalJSON reads seconds.
func (s *Seconds) UnmarshalJSON(b []byte) error {
	var v float64
	err := json.Unmarshal(b, &v)
	*s = Seconds(v * float64(time.Second))
	return err
}

// QueueEntry is a message in the queue.
type QueueEntry struct {
	ID         string           `json:"id"`
	Arrived    time.Time        `json:"arrived"`
	Size       int64            `json:"size"`
	From       string           `json:"from"` // "<>" is the null reverse-path
	MessageID  string           `json:"message_id,omitempty"`
	Protocol   string           `json:"protocol,omitempty"`
	Peer       string           `json:"peer,omitempty"`
	TLS        string           `json:"tls,omitempty"` // version and cipher suite
	Account    string           `json:"account,omitempty"`
	Asked      QueueAsked       `json:"asked,omitzero"`
	Recipients []QueueRecipient `json:"recipients"`
}

// QueueAsked is what the sender of a message asked for; what is zero was not asked for.
type QueueAsked struct {
	Release      time.Time `json:"release,omitzero"`        // not to be delivered before it
	Deadline     time.Time `json:"deadline,omitzero"`       // to be delivered by then
	DeadlineMode string    `json:"deadline_mode,omitempty"` // R: else it goes back, N: else the sender is told; T: and of relays
	Priority     int       `json:"priority,omitempty"`      // -9 to 9
	Body         string    `json:"body,omitempty"`          // 7BIT, 8BITMIME, BINARYMIME
	UTF8         bool      `json:"smtputf8,omitempty"`
	RequireTLS   bool      `json:"require_tls,omitempty"`
	TLSOptional  bool      `json:"tls_optional,omitempty"`
	Return       string    `json:"return,omitempty"` // FULL or HDRS
	EnvelopeID   string    `json:"envelope_id,omitempty"`
	Solicit      string    `json:"solicit,omitempty"` // solicitation class keywords
}

// QueueRecipient is a recipient that is not settled.
type QueueRecipient struct {
	To       string    `json:"to"`
	State    string    `json:"state"`
	Local    bool      `json:"local"`
	Next     time.Time `json:"next,omitzero"`
	Attempts int       `json:"attempts"`
	Reply    string    `json:"reply,omitempty"`        // of the last attempt
	Mailbox  string    `json:"mailbox,omitempty"`      // where it goes, when not to the INBOX
	List     bool      `json:"list,omitempty"`         // it is a list of ours
	Route    string    `json:"route,omitempty"`        // how it goes, when not to the hosts that DNS names
	Chosen   bool      `json:"route_chosen,omitempty"` // the route was chosen for this recipient
	Via      string    `json:"via,omitempty"`          // our address that forwards it
	Reason   string    `json:"reason,omitempty"`       // why it is on hold
	Waits    string    `json:"waits,omitempty"`        // why it is not tried though it is due

	// What the sender asked for.
	Notify        string    `json:"notify,omitempty"`   // NEVER, or of SUCCESS, FAILURE, DELAY
	Original      string    `json:"original,omitempty"` // "type;address"
	ValidSince    time.Time `json:"valid_since,omitzero"`
	ValidContinue bool      `json:"valid_continue,omitempty"` // it may go where that cannot be checked
}

// Changed is how many recipients an order changed.
type Changed struct {
	Recipients int `json:"recipients"`
}

// Mailbox is a mailbox of an account.
type Mailbox struct {
	Name        string    `json:"name"`
	Role        string    `json:"role,omitempty"`
	Subscribed  bool      `json:"subscribed"`
	UIDValidity uint32    `json:"uid_validity"`
	UIDNext     uint32    `json:"uid_next"`
	ModSeq      uint64    `json:"modseq"`
	Messages    uint32    `json:"messages"`
	Unseen      uint32    `json:"unseen"`
	Octets      int64     `json:"octets"`
	Created     time.Time `json:"created"`
}

// MailboxName names a mailbox of an account. Role is for CreateMailbox only.
type MailboxName struct {
	Account string `json:"account"`
	Mailbox string `json:"mailbox"`
	Role    string `json:"role,omitempty"`
}

// RenameMailbox renames a mailbox and all below it.
type RenameMailbox struct {
	Account string `json:"account"`
	From    string `json:"from"`
	To      string `json:"to"`
}

// Share is what somebody may do with a mailbox.
type Share struct {
	With   string `json:"with"`   // an account's address or "anyone"; after "-" when the rights are taken from it
	Rights string `json:"rights"` // letters, as RFC 4314 has them
}

// ShareMailbox shares a mailbox. Rights are letters, or "read", "write" or "all"; empty is none.
type ShareMailbox struct {
	Account string `json:"account"`
	Mailbox string `json:"mailbox"`
	Share
}

// MessageList says which messages to list.
type MessageList struct {
	MailboxName
	After uint32 `json:"after,omitempty"` // UID
	Limit int    `json:"limit,omitempty"` // 0 is all
}

// Message is a message in a mailbox.
type Message struct {
	UID      uint32    `json:"uid"`
	ID       string    `json:"id"`
	Size     int64     `json:"size"`
	Internal time.Time `json:"internal_date"`
	Flags    []string  `json:"flags"`
	From     string    `json:"from"`
	Subject  string    `json:"subject"`
	Preview  string    `json:"preview,omitempty"`
}

// MessageName names a message by its ID, or by mailbox and UID.
type MessageName struct {
	ID      string `json:"id,omitempty"`
	Account string `json:"account,omitempty"`
	Mailbox string `json:"mailbox,omitempty"`
	UID     uint32 `json:"uid,omitempty"`
}

// ImportMessage is one message to be imported. Body is read before the next one is
// asked for.
type ImportMessage struct {
	Name     string    `json:"name"` // for errors: the file, and the message's place in it
	Internal time.Time `json:"internal_date"`
	Flags    []string  `json:"flags,omitempty"`
	Body     io.Reader `json:"-"`
}

// Imported is how far an import has come.
type Imported struct {
	Messages int64 `json:"messages"`
	Octets   int64 `json:"octets"`
}

// TraceQuery names messages: an ID, a Message-ID, or the address of a sender or
// recipient.
type TraceQuery struct {
	What  string `json:"what"`
	Limit int    `json:"limit,omitempty"` // messages; 0 is 20
}

// Life is what is known of one message.
type Life struct {
	ID     string      `json:"id"`
	Events []Event     `json:"events"`
	Queue  *QueueEntry `json:"queue,omitempty"` // while it is in the queue
}

// Event is one thing that happened to a message.
type Event struct {
	Time      time.Time `json:"time"`
	Kind      string    `json:"kind"`
	From      string    `json:"from,omitempty"`
	To        []string  `json:"to,omitempty"`
	Given     []string  `json:"given,omitempty"` // what the sender named, where that led to others
	MessageID string    `json:"message_id,omitempty"`
	Size      int64     `json:"size,omitempty"`
	Protocol  string    `json:"protocol,omitempty"`
	Peer      string    `json:"peer,omitempty"`
	TLS       string    `json:"tls,omitempty"`
	Account   string    `json:"account,omitempty"`
	Reply     string    `json:"reply,omitempty"`
	Mailbox   string    `json:"mailbox,omitempty"`
	UID       uint32    `json:"uid,omitempty"`
	By        string    `json:"by,omitempty"`
	Next      string    `json:"next,omitempty"`
	Related   string    `json:"related,omitempty"`
	Dialogue  string    `json:"dialogue,omitempty"` // what was said in an attempt, a line each, "> " ours and "< " theirs
}
