// Package mailbox is what people read: mailboxes with messages, flags and numbers
// that never lie (RFC 9051, 2.3.1; RFC 7162). It speaks of mailboxes, not of any
// protocol library. A sequence number does not exist here; it is imapd's.
//
//	mb  mailbox id                     counts, UIDNEXT, highest modseq ...
//	mn  owner, name                    mailbox id; name "INBOX" in capitals
//	ms  owner, name                    a subscription, also to a name without mailbox
//	mk  mailbox id                     the keywords that its messages have had
//	mf  mailbox id, uid / 512          who is there of 512 messages, their flags and modseqs; of those
//	                                   that were expunged the modseq of their end
//	mm  mailbox id, uid                what never changes of one message: body, dates ...
//	md  mailbox id, uid / 512          there are records in mm of messages that were expunged
//	mr  owner, mailbox id              a removed mailbox whose messages are not all gone yet
//	mt  owner, generation, message     the thread of a message, see conversation
//	mv  owner                          the last UIDVALIDITY given out
//	mu  owner                          octets and messages of all mailboxes
//	mi  mailbox id, first uid          a block of the full-text index, which covers the uids from this one on
//	ma  owner, mailbox id              its access control list, if any: who else may do what
//	mg  account, owner, mailbox id     that list names the account; 0 is anyone
//	mx  account, mailbox id, entry     an annotation; account 0 is shared, mailbox 0 is the server
//	mo  mailbox id, account            the account has private annotations there
//	my  account                        how many annotations and octets count against it
//
// The MIME structure of a message is its body's note in the store.
//
// Opening a mailbox, changing flags and telling what changed need only mf: some thousand short records
// for a million messages, see sheet. The history of expunges is kept there too, for as long as the mailbox lives.
//
// Every change is one transaction; watchers are told after the commit. All that changes in a mailbox in one
// transaction has one modseq. Bulk work goes in bounded steps, so that nobody waits long for the one writer; what
// an interrupted step leaves behind is consistent. An expunge takes messages out of sight, of the counts and of the
// quota; their records and bodies go soon after, see Run.
//
// A view costs a bitmap of the UIDs, shared by all views of a mailbox that have followed
// equally far: a few kilobytes for a million messages that came one after the other, at
// most 8 KiB for each 65,536 UIDs.
package mailbox

import (
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"postroad/internal/store"
)

// Errors that callers branch on.
var (
	ErrNotFound  = errors.New("no such mailbox")
	ErrExists    = errors.New("the mailbox exists already")
	ErrName      = errors.New("not a possible mailbox name")
	ErrInbox     = errors.New("INBOX cannot be removed")
	ErrExpunged  = errors.New("the message is gone")
	ErrOverQuota = errors.New("over quota")
	ErrLimit     = errors.New("over a limit") // mailboxes per owner, keywords per mailbox, uids used up
	ErrFlag      = errors.New("not a possible flag")
	ErrRights    = errors.New("permission denied")
	ErrRight     = errors.New("there is no such right")
	ErrRole      = errors.New("the mailbox cannot have this special use")
	ErrChildren  = errors.New("it is no mailbox, and there are mailboxes below it")
	ErrOwner     = errors.New("a mailbox stays with its owner; copy its messages instead")

	ErrIdentifier = errors.New("there is no such account")

	ErrEntry           = errors.New("not a possible annotation")
	ErrAnnotationSize  = errors.New("the annotation is too long")
	ErrAnnotationCount = errors.New("there are too many annotations")
)

// Owner is the account whose mailboxes these are.
type Owner uint64

// ID names a mailbox for ever; it outlives renames and is never used again.
type ID uint64

// UID names a message in its mailbox for ever.
type UID = uint32

// Role is a mailbox's special use (RFC 6154): `\Sent` and the like, or empty.
type Role string

// The roles of the mailboxes that every account is made with.
const (
	Drafts  Role = `\Drafts`
	Sent    Role = `\Sent`
	Junk    Role = `\Junk`
	Trash   Role = `\Trash`
	Archive Role = `\Archive`
)

// Mailbox is a mailbox as it was when it was read.
type Mailbox struct {
	ID          ID
	Owner       Owner
	Name        string // UTF-8, levels separated by "/"
	Role        Role
	Subscribed  bool
	UIDValidity uint32
	UIDNext     UID
	ModSeq      uint64 // the highest so far; at least 1
	Messages    uint32
	Unseen      uint32
	Deleted     uint32 // with \Deleted
	Octets      int64
	Created     time.Time
	Rights      Rights // of the account that read it through an Access
}

// Message is one message in a mailbox.
type Message struct {
	UID      UID
	Body     store.ID
	Size     int64     // octets
	Internal time.Time // INTERNALDATE, to the second, in the zone it was given in
	Saved    time.Time // when it came into this mailbox (RFC 8514), to the second
	Flags    Flags     // shared with other messages; not to be changed
	ModSeq   uint64
	thread   uint64
}

// EmailID names the message's octets, in whatever mailbox they are (RFC 8474, 5.1).
func (m *Message) EmailID() string { return "M" + m.Body.String() }

// ThreadID names the conversation that the message belongs to (RFC 8474, 5.2).
func (m *Message) ThreadID() string { return "T" + store.ID(m.thread).String() }

// Options are New's settings; zero values are ready for use.
type Options struct {
	Now       func() time.Time
	Mailboxes int // per owner; 0 is 10,000
	Keywords  int // per mailbox; 0 is 500

	Quota    func(store.Reader, Owner) Quota // what an owner may hold; nil is no limit
	SetQuota func(Owner, Quota) error        // changes it for an administrator; nil is not over IMAP
	Admin    func(store.Reader, Owner) bool  // who may change quotas and the server's annotations; nil is nobody
}

// Bounds of work and memory.
const (
	maxMailboxes = 10_000  // per owner, unless Options say otherwise
	maxKeywords  = 500     // per mailbox, unless Options say otherwise
	maxGrants    = 100     // in one access control list
	bulkStep     = 1_000   // messages dropped in one transaction
	copyStep     = 5_000   // messages copied or moved in one: some 20 ms of work
	flagStep     = 30_000  // messages whose flags are changed in one
	expungeStep  = 10_000  // messages expunged in one, their bodies left for later
	pageSize     = 500     // messages read in one transaction, and the rest of a sheet
	maxGathered  = 1 << 20 // messages of all that sort and thread at once
)

// Service is all mailboxes of one store. Any number of goroutines.
type Service struct {
	// Set by New, never changed.
	st       *store.Store
	o        Options
	hub      *hub
	watchers *watchers
	index    *indexer
	by       *Access // the one that this copy works for, or nil

	sheets   *sync.Pool          // of *sheet, between their uses
	gathered *semaphore.Weighted // messages that are being sorted
	doomed   chan struct{}       // capacity 1: a value waits when purge has something to do
}

// New returns the mailboxes kept in st.
func New(st *store.Store, o Options) *Service {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Mailboxes == 0 {
		o.Mailboxes = maxMailboxes
	}
	if o.Keywords == 0 {
		o.Keywords = maxKeywords
	}
	index := newIndexer()
	return &Service{
		st: st, o: o, hub: newHub(index), watchers: &watchers{}, index: index,
		sheets: &sync.Pool{}, gathered: semaphore.NewWeighted(maxGathered), doomed: make(chan struct{}, 1),
	}
}
