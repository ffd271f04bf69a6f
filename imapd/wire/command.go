package wire

import "time"

// A Command is what a client asks for (RFC 9051, 6). Names are in capitals, without "UID" in front: the
// arguments say whether numbers are UIDs.
type Command struct {
	Tag  string
	Name string
	Args any // one of the types below; nil for a command without arguments
}

// Login is LOGIN.
type Login struct{ User, Password string }

// Authenticate is AUTHENTICATE. Initial is nil when there was no initial response, and empty when it was "=".
type Authenticate struct {
	Mechanism string // in capitals
	Initial   []byte
}

// Enable is ENABLE; the names are in capitals.
type Enable struct{ Capabilities []string }

// ID is ID (RFC 2971); none is NIL. Values that were NIL are empty.
type ID struct{ Fields []Field }

// Field is a name with a value.
type Field struct{ Name, Value string }

// Compress is COMPRESS (RFC 4978).
type Compress struct{ Algorithm string }

// Select is SELECT or EXAMINE.
type Select struct {
	Mailbox   string
	CondStore bool     // the parameter CONDSTORE
	QResync   *QResync // nil without
}

// QResync is what a client that was here before knows (RFC 7162, 3.2.5).
type QResync struct {
	UIDValidity uint32
	ModSeq      uint64
	Known       Set // UIDs; without ranges when the client did not say
	SeqMatch    Set // message numbers and the UIDs they had, of equal length; none when not given
	UIDMatch    Set
}

// Mailbox is a command whose only argument is a mailbox: DELETE, SUBSCRIBE, UNSUBSCRIBE, GETACL, MYRIGHTS,
// GETQUOTAROOT.
type Mailbox struct{ Name string }

// Create is CREATE (RFC 6154, 3).
type Create struct {
	Mailbox string
	Use     []string // special uses, as in `\Sent`
}

// Rename is RENAME.
type Rename struct{ From, To string }

// List is LIST in all its forms (RFC 5258, 5819, 6154, 8440, 9590); LSUB has no options.
type List struct {
	Reference string
	Patterns  []string
	Extended  bool // it has options or several patterns

	// Selection options.
	Subscribed, Remote, RecursiveMatch, SpecialUse bool

	// Return options.
	ReturnSubscribed, ReturnChildren, ReturnSpecialUse, ReturnMyRights bool
	ReturnStatus                                                       StatusItems // 0 is none
	ReturnMetadata                                                     []string    // entries
}

// StatusItems are what STATUS tells of a mailbox.
type StatusItems uint16

// The items of STATUS.
const (
	StatusMessages       StatusItems = 1 << iota
	StatusRecent                     // RFC 3501
	StatusUIDNext                    //
	StatusUIDValidity                //
	StatusUnseen                     //
	StatusDeleted                    // RFC 9051
	StatusSize                       // RFC 8438
	StatusHighestModSeq              // RFC 7162
	StatusAppendLimit                // RFC 7889
	StatusMailboxID                  // RFC 8474
	StatusDeletedStorage             // RFC 9208
)

// Status is STATUS.
type Status struct {
	Mailbox string
	Items   StatusItems
}

// Append is the beginning of an APPEND; the Decoder's NextMessage reads what follows.
type Append struct{ Mailbox string }

// Replace is the beginning of a REPLACE (RFC 8508); NextMessage reads what follows.
type Replace struct {
	UID     bool
	Number  uint32 // 0 is "*"
	Mailbox string
}

// Range is the numbers from From to To, in either order; 0 is "*".
type Range struct{ From, To uint32 }

// Set is numbers of messages.
type Set struct {
	Ranges []Range
	Saved  bool // "$", the result of an earlier search (RFC 5182)
}

// Expunge is EXPUNGE, or UID EXPUNGE with its set (RFC 4315).
type Expunge struct {
	UID bool
	Set Set
}

// Copy is COPY or MOVE.
type Copy struct {
	UID     bool
	Set     Set
	Mailbox string
}

// Store is STORE.
type Store struct {
	UID            bool
	Set            Set
	UnchangedSince *uint64 // nil without (RFC 7162, 3.1.3)
	Op             byte    // '+', '-', or 0
	Silent         bool
	Flags          []string
}

// Fetch is FETCH. Macros have become the items that they stand for.
type Fetch struct {
	UID          bool
	Set          Set
	Items        []FetchItem
	ChangedSince uint64   // 0 without (RFC 7162, 3.1.4)
	Vanished     bool     // RFC 7162, 3.2.6
	Partial      *Partial // nil without (RFC 9394, 3.3)
}

// FetchAttr is what an item asks for.
type FetchAttr uint8

// The attributes of messages.
const (
	FetchFlags FetchAttr = iota
	FetchInternalDate
	FetchSize          // RFC822.SIZE
	FetchEnvelope      //
	FetchBody          // BODY without section
	FetchBodyStructure //
	FetchUID           //
	FetchModSeq        // RFC 7162
	FetchEmailID       // RFC 8474
	FetchThreadID      //
	FetchSaveDate      // RFC 8514
	FetchPreview       // RFC 8970
	FetchSection       // BODY[...], BODY.PEEK[...]
	FetchBinary        // BINARY[...], BINARY.PEEK[...]
	FetchBinarySize    // BINARY.SIZE[...]
	FetchRFC822        // RFC822 of RFC 3501, answered by its name
	FetchRFC822Header  //
	FetchRFC822Text    //
)

// FetchItem is one item of a FETCH.
type FetchItem struct {
	Attr    FetchAttr
	Lazy    bool    // PREVIEW (LAZY)
	Peek    bool    // the flags stay as they are
	Section Section // of FetchSection, FetchBinary and FetchBinarySize
}

// SectionText is which text of a part a section is.
type SectionText uint8

// The texts of a section (RFC 9051, 6.4.5.1).
const (
	SectionAll       SectionText = iota // BODY[] or BODY[1]
	SectionHeader                       // HEADER
	SectionFields                       // HEADER.FIELDS
	SectionFieldsNot                    // HEADER.FIELDS.NOT
	SectionTextPart                     // TEXT
	SectionMIME                         // MIME
)

// Section is a part of a message, and which octets of that.
type Section struct {
	Part   []int
	Text   SectionText
	Fields []string // header names, as the client wrote them
	From   int64    // first octet, when Cut
	Count  int64    // most octets, when Cut
	Cut    bool
}

// Partial is a range of results (RFC 9394), as the client wrote it: the first is 1, or the last -1 when both count from
// the end.
type Partial struct{ From, To int64 }

// SearchReturn is what a search is to tell (RFC 4731, 5182, 5267, 9394); nil asks for the old SEARCH response.
type SearchReturn struct {
	Min, Max, All, Count, Save bool
	Relevancy                  bool        // RFC 6203
	Update, Context            bool        // RFC 5267
	Fetch                      []FetchItem // of Update: what is to be told of new messages (RFC 5465, 7)
	Partial                    *Partial
}

// Search is SEARCH or, with In, ESEARCH (RFC 7377).
type Search struct {
	UID     bool
	In      *Sources
	Return  *SearchReturn
	Charset string // as the client wrote it; "" when it said nothing
	Key     SearchKey
}

// Sort is SORT (RFC 5256).
type Sort struct {
	UID     bool
	Return  *SearchReturn
	By      []SortKey
	Charset string
	Key     SearchKey
}

// SortKey is one criterion of order, as in "REVERSE DATE".
type SortKey struct {
	Reverse bool
	Name    string // in capitals
}

// Thread is THREAD (RFC 5256).
type Thread struct {
	UID       bool
	Algorithm string // in capitals
	Charset   string
	Key       SearchKey
}

// CancelUpdate is CANCELUPDATE (RFC 5267): the tags of the searches.
type CancelUpdate struct{ Tags []string }

// A SearchKey is one test of a message, or several (RFC 9051, 6.4.4).
type SearchKey struct {
	Op      SearchOp
	Fuzzy   bool        // RFC 6203
	Keys    []SearchKey // of And, Or (two), Not (one)
	Set     Set         // of Seq and UID
	Text    string      // text, flag, keyword, object id, as octets in the command's charset
	Field   string      // of Header and Envelope
	Number  uint64      // octets, seconds, modseq
	Date    time.Time   // its day, in UTC
	Entry   string      // of ModSeq: the entry name, or ""
	EntryOf string      // of ModSeq: "priv", "shared" or "all"
}

// SearchOp is what a key tests.
type SearchOp uint8

// The tests. Those of system flags are Flag with its name in Text ("\\Seen"); UNSEEN is Not of it, NEW is And of
// Recent and Not Seen, OLD is Not Recent, ON, SENTON and SAVEDON are their own.
const (
	SearchAnd SearchOp = iota // all of Keys; with none it is ALL
	SearchOr
	SearchNot
	SearchSeq
	SearchUID
	SearchFlag    // Text: `\Seen` ...
	SearchKeyword // Text
	SearchRecent
	SearchBefore
	SearchOn
	SearchSince
	SearchSentBefore
	SearchSentOn
	SearchSentSince
	SearchSavedBefore // RFC 8514
	SearchSavedOn
	SearchSavedSince
	SearchSaveDateSupported
	SearchHeader   // Field, Text
	SearchEnvelope // Field: From, To, Cc, Bcc or Subject; Text
	SearchBody
	SearchText
	SearchLarger
	SearchSmaller
	SearchOlder   // RFC 5032
	SearchYounger //
	SearchModSeq  // RFC 7162
	SearchEmailID // RFC 8474
	SearchThreadID
)

// Sources are mailboxes, as NOTIFY and ESEARCH name them (RFC 5465, 6; RFC 7377).
type Sources struct{ Filters []Filter }

// Filter is some mailboxes.
type Filter struct {
	Kind  FilterKind
	Names []string // of Subtree, SubtreeOne and Mailboxes
}

// FilterKind is how a filter picks mailboxes.
type FilterKind uint8

// The kinds of filter.
const (
	FilterSelected FilterKind = iota
	FilterSelectedDelayed
	FilterInboxes
	FilterPersonal
	FilterSubscribed
	FilterSubtree
	FilterSubtreeOne // RFC 7377
	FilterMailboxes
)

// Notify is NOTIFY (RFC 5465).
type Notify struct {
	None   bool // NOTIFY NONE
	Status bool // tell the state of the mailboxes now
	Groups []NotifyGroup
}

// NotifyGroup is which events of which mailboxes are to be told.
type NotifyGroup struct {
	Filter Filter
	Events []NotifyEvent // none when the client said NONE
}

// NotifyEvent is one kind of event, by its name as the client wrote it in RFC 5465's spelling where known; of MessageNew
// with what is to be fetched.
type NotifyEvent struct {
	Name  string
	Fetch []FetchItem
}

// SetACL is SETACL (RFC 4314). Mod is '+', '-', or 0.
type SetACL struct {
	Mailbox, Identifier string
	Mod                 byte
	Rights              string
}

// Identity is DELETEACL or LISTRIGHTS.
type Identity struct{ Mailbox, Identifier string }

// GetMetadata is GETMETADATA (RFC 5464). Mailbox "" is the server.
type GetMetadata struct {
	Mailbox string
	Entries []string
	MaxSize *uint32 // nil without
	Depth   int     // 0, 1, or -1 for infinity
}

// SetMetadata is SETMETADATA.
type SetMetadata struct {
	Mailbox string
	Entries []Annotation
}

// Annotation is an entry and its value; nil is NIL, which removes it.
type Annotation struct {
	Name  string
	Value []byte
}

// GetQuota is GETQUOTA (RFC 9208).
type GetQuota struct{ Root string }

// SetQuota is SETQUOTA.
type SetQuota struct {
	Root   string
	Limits []QuotaLimit
}

// QuotaLimit is the limit of one resource.
type QuotaLimit struct {
	Resource string // in capitals
	Limit    uint64
}
