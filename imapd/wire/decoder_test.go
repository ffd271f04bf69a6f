package wire

import (
	"errors"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"
)

// decode reads one command, with limits of an account.
func decode(input string) (Command, error) {
	d := NewDecoder(strings.NewReader(input), func() error { return nil })
	d.SetLimits(AfterLogin(1 << 20))
	return d.Command()
}

func u64(n uint64) *uint64 { return &n }
func u32(n uint32) *uint32 { return &n }

func nums(ranges ...uint32) Set {
	var s Set
	for i := 0; i < len(ranges); i += 2 {
		s.Ranges = append(s.Ranges, Range{ranges[i], ranges[i+1]})
	}
	return s
}

func day(y int, m time.Month, d int) time.Time { return time.Date(y, m, d, 0, 0, 0, 0, time.UTC) }

func items(attrs ...FetchAttr) []FetchItem { return attributes(attrs...) }

func TestCommands(t *testing.T) {
	section := func(attr FetchAttr, peek bool, s Section) []FetchItem {
		return []FetchItem{{Attr: attr, Peek: peek, Section: s}}
	}
	for _, tt := range []struct {
		line string
		name string
		args any
	}{
		{"NOOP", "NOOP", nil},
		{"noop", "NOOP", nil},
		{"NOOP ", "NOOP", nil},
		{"Capability", "CAPABILITY", nil},
		{"LOGIN joe secret", "LOGIN", &Login{"joe", "secret"}},
		{`LOGIN "joe" "a \"b\" \\c"`, "LOGIN", &Login{"joe", `a "b" \c`}},
		{`LOGIN joe 5%*\x]`, "LOGIN", &Login{"joe", `5%*\x]`}},
		{"LOGIN {3}\r\njoe {2+}\r\nab", "LOGIN", &Login{"joe", "ab"}},
		{"LOGIN {0}\r\n {0+}\r\n", "LOGIN", &Login{}},
		{"LOGIN joe \"pässword\"", "LOGIN", &Login{"joe", "pässword"}},
		{"AUTHENTICATE plain", "AUTHENTICATE", &Authenticate{Mechanism: "PLAIN"}},
		{"AUTHENTICATE PLAIN =", "AUTHENTICATE", &Authenticate{"PLAIN", []byte{}}},
		{"AUTHENTICATE PLAIN AGEAYg==", "AUTHENTICATE", &Authenticate{"PLAIN", []byte("\x00a\x00b")}},
		{"ENABLE condstore QRESYNC", "ENABLE", &Enable{[]string{"CONDSTORE", "QRESYNC"}}},
		{"ID NIL", "ID", &ID{}},
		{`ID ("name" "mutt" "os" nil)`, "ID", &ID{[]Field{{"name", "mutt"}, {"os", ""}}}},
		{"ID ()", "ID", &ID{}},
		{"COMPRESS deflate", "COMPRESS", &Compress{"DEFLATE"}},

		{"SELECT inbox", "SELECT", &Select{Mailbox: "INBOX"}},
		{`SELECT "INBOX" `, "SELECT", &Select{Mailbox: "INBOX"}},
		{"EXAMINE foo]", "EXAMINE", &Select{Mailbox: "foo]"}},
		{"SELECT x (CONDSTORE)", "SELECT", &Select{Mailbox: "x", CondStore: true}},
		{"SELECT x (QRESYNC (1 2))", "SELECT", &Select{Mailbox: "x", QResync: &QResync{UIDValidity: 1, ModSeq: 2}}},
		{"SELECT x (QRESYNC (1 2 3:4))", "SELECT",
			&Select{Mailbox: "x", QResync: &QResync{UIDValidity: 1, ModSeq: 2, Known: nums(3, 4)}}},
		{"SELECT x (QRESYNC (1 2 (5,9 50,90)))", "SELECT", &Select{Mailbox: "x", QResync: &QResync{UIDValidity: 1,
			ModSeq: 2, SeqMatch: nums(5, 5, 9, 9), UIDMatch: nums(50, 50, 90, 90)}}},
		{"SELECT x (CONDSTORE QRESYNC (1 2 3:4 (5 50)))", "SELECT", &Select{Mailbox: "x", CondStore: true,
			QResync: &QResync{UIDValidity: 1, ModSeq: 2, Known: nums(3, 4), SeqMatch: nums(5, 5), UIDMatch: nums(50, 50)}}},
		{"DELETE &AOk-", "DELETE", &Mailbox{"é"}},
		{`SUBSCRIBE "R&-D"`, "SUBSCRIBE", &Mailbox{"R&D"}},
		{"SUBSCRIBE {3}\r\na b", "SUBSCRIBE", &Mailbox{"a b"}},
		{`UNSUBSCRIBE "é"`, "UNSUBSCRIBE", &Mailbox{"é"}},
		{"CREATE a/b", "CREATE", &Create{Mailbox: "a/b"}},
		{`CREATE a (USE (\Sent \Drafts))`, "CREATE", &Create{"a", []string{`\Sent`, `\Drafts`}}},
		{"RENAME a inbox", "RENAME", &Rename{"a", "INBOX"}},
		{"GETACL a", "GETACL", &Mailbox{"a"}},
		{"MYRIGHTS a", "MYRIGHTS", &Mailbox{"a"}},
		{"GETQUOTAROOT INBOX", "GETQUOTAROOT", &Mailbox{"INBOX"}},

		{`LIST "" *`, "LIST", &List{Patterns: []string{"*"}}},
		{`LIST "" "%"`, "LIST", &List{Patterns: []string{"%"}}},
		{`LIST "" ""`, "LIST", &List{Patterns: []string{""}}},
		{`LIST a/ &AOk-*`, "LIST", &List{Reference: "a/", Patterns: []string{"é*"}}},
		{`LIST "" &AGE-*`, "LIST", &List{}},
		{`LIST () "" *`, "LIST", &List{Patterns: []string{"*"}, Extended: true}},
		{`LIST (SUBSCRIBED RECURSIVEMATCH) "" (a "b%")`, "LIST",
			&List{Patterns: []string{"a", "b%"}, Extended: true, Subscribed: true, RecursiveMatch: true}},
		{`LIST (remote special-use) "" * RETURN (subscribed children SPECIAL-USE MYRIGHTS STATUS (MESSAGES SIZE) METADATA (/private/comment))`,
			"LIST", &List{Patterns: []string{"*"}, Extended: true, Remote: true, SpecialUse: true,
				ReturnSubscribed: true, ReturnChildren: true, ReturnSpecialUse: true, ReturnMyRights: true,
				ReturnStatus: StatusMessages | StatusSize, ReturnMetadata: []string{"/private/comment"}}},
		{`LIST "" * RETURN ()`, "LIST", &List{Patterns: []string{"*"}, Extended: true}},
		{`LSUB "" *`, "LSUB", &List{Patterns: []string{"*"}}},
		{"STATUS a (messages recent uidnext uidvalidity unseen deleted size highestmodseq appendlimit mailboxid deleted-storage)",
			"STATUS", &Status{"a", 1<<11 - 1}},

		{"SETACL a joe +lr", "SETACL", &SetACL{"a", "joe", '+', "lr"}},
		{`SETACL a "-joe" ""`, "SETACL", &SetACL{"a", "-joe", 0, ""}},
		{"DELETEACL a joe", "DELETEACL", &Identity{"a", "joe"}},
		{"LISTRIGHTS a joe", "LISTRIGHTS", &Identity{"a", "joe"}},
		{`GETMETADATA "" /shared/comment`, "GETMETADATA", &GetMetadata{Entries: []string{"/shared/comment"}}},
		{`GETMETADATA (MAXSIZE 10 DEPTH infinity) a (/a "/b")`, "GETMETADATA",
			&GetMetadata{"a", []string{"/a", "/b"}, u32(10), -1}},
		{`GETMETADATA a (DEPTH 1) (/a)`, "GETMETADATA", &GetMetadata{"a", []string{"/a"}, nil, 1}},
		{"SETMETADATA a (/x \"v\" /y NIL /z ~{2}\r\n\x00a /w {0}\r\n)", "SETMETADATA", &SetMetadata{"a",
			[]Annotation{{"/x", []byte("v")}, {"/y", nil}, {"/z", []byte("\x00a")}, {"/w", []byte{}}}}},
		{`GETQUOTA ""`, "GETQUOTA", &GetQuota{}},
		{`SETQUOTA "" (storage 512 MESSAGE 0)`, "SETQUOTA", &SetQuota{"", []QuotaLimit{{"STORAGE", 512}, {"MESSAGE", 0}}}},
		{`SETQUOTA r ()`, "SETQUOTA", &SetQuota{Root: "r"}},

		{"NOTIFY NONE", "NOTIFY", &Notify{None: true}},
		{"NOTIFY SET STATUS (selected (MessageNew (UID BODY.PEEK[]) messageexpunge)) (subtree (a b) NONE)", "NOTIFY",
			&Notify{Status: true, Groups: []NotifyGroup{
				{Filter{Kind: FilterSelected}, []NotifyEvent{
					{"MessageNew", []FetchItem{{Attr: FetchUID}, {Attr: FetchSection, Peek: true}}}, {Name: "MessageExpunge"}}},
				{Filter{FilterSubtree, []string{"a", "b"}}, nil}}}},
		{"NOTIFY SET (mailboxes inbox (FlagChange Odd))", "NOTIFY", &Notify{Groups: []NotifyGroup{
			{Filter{FilterMailboxes, []string{"INBOX"}}, []NotifyEvent{{Name: "FlagChange"}, {Name: "Odd"}}}}}},

		{"EXPUNGE", "EXPUNGE", &Expunge{}},
		{"UID EXPUNGE 1:*", "EXPUNGE", &Expunge{true, nums(1, 0)}},
		{"COPY 5:*,3 a", "COPY", &Copy{false, nums(5, 0, 3, 3), "a"}},
		{"uid move $ INBOX", "MOVE", &Copy{true, Set{Saved: true}, "INBOX"}},
		{"COPY 4294967295:1 a", "COPY", &Copy{false, nums(4294967295, 1), "a"}},
		{`STORE 1 +FLAGS.SILENT (\Seen)`, "STORE", &Store{Set: nums(1, 1), Op: '+', Silent: true, Flags: []string{`\Seen`}}},
		{`UID STORE * -flags \seen $Junk a]`, "STORE",
			&Store{UID: true, Set: nums(0, 0), Op: '-', Flags: []string{`\seen`, "$Junk", "a]"}}},
		{"STORE 1 (UNCHANGEDSINCE 0) FLAGS ()", "STORE", &Store{Set: nums(1, 1), UnchangedSince: u64(0), Flags: []string{}}},

		{"FETCH 1 ALL", "FETCH", &Fetch{Set: nums(1, 1), Items: items(FetchFlags, FetchInternalDate, FetchSize, FetchEnvelope)}},
		{"FETCH 1 fast", "FETCH", &Fetch{Set: nums(1, 1), Items: items(FetchFlags, FetchInternalDate, FetchSize)}},
		{"FETCH 1 FULL", "FETCH",
			&Fetch{Set: nums(1, 1), Items: items(FetchFlags, FetchInternalDate, FetchSize, FetchEnvelope, FetchBody)}},
		{"FETCH 1 uid", "FETCH", &Fetch{Set: nums(1, 1), Items: items(FetchUID)}},
		{"UID FETCH 1:* (FLAGS) (CHANGEDSINCE 5 VANISHED)", "FETCH",
			&Fetch{UID: true, Set: nums(1, 0), Items: items(FetchFlags), ChangedSince: 5, Vanished: true}},
		{"UID FETCH 1:* UID (PARTIAL -100:-1)", "FETCH",
			&Fetch{UID: true, Set: nums(1, 0), Items: items(FetchUID), Partial: &Partial{-100, -1}}},
		{"FETCH 1 (MODSEQ EMAILID THREADID SAVEDATE RFC822.SIZE BODY BODYSTRUCTURE RFC822 RFC822.TEXT)", "FETCH",
			&Fetch{Set: nums(1, 1), Items: items(FetchModSeq, FetchEmailID, FetchThreadID, FetchSaveDate, FetchSize,
				FetchBody, FetchBodyStructure, FetchRFC822, FetchRFC822Text)}},
		{"FETCH 1 (PREVIEW (LAZY) UID)", "FETCH",
			&Fetch{Set: nums(1, 1), Items: []FetchItem{{Attr: FetchPreview, Lazy: true}, {Attr: FetchUID}}}},
		{"FETCH 1 PREVIEW (CHANGEDSINCE 7)", "FETCH", &Fetch{Set: nums(1, 1), Items: items(FetchPreview), ChangedSince: 7}},
		{"FETCH 1 BODY[]", "FETCH", &Fetch{Set: nums(1, 1), Items: section(FetchSection, false, Section{})}},
		{"FETCH 1 body.peek[header]", "FETCH",
			&Fetch{Set: nums(1, 1), Items: section(FetchSection, true, Section{Text: SectionHeader})}},
		{`FETCH 1 BODY[1.2.HEADER.FIELDS ("To" subject)]<5.10>`, "FETCH", &Fetch{Set: nums(1, 1), Items: section(FetchSection,
			false, Section{Part: []int{1, 2}, Text: SectionFields, Fields: []string{"To", "subject"}, From: 5, Count: 10, Cut: true})}},
		{"FETCH 1 BODY[HEADER.FIELDS.NOT ({2}\r\nTo)]", "FETCH", &Fetch{Set: nums(1, 1),
			Items: section(FetchSection, false, Section{Text: SectionFieldsNot, Fields: []string{"To"}})}},
		{"FETCH 1 BODY[1.MIME]", "FETCH",
			&Fetch{Set: nums(1, 1), Items: section(FetchSection, false, Section{Part: []int{1}, Text: SectionMIME})}},
		{"FETCH 1 BODY[TEXT]<5.9223372036854775807>", "FETCH", &Fetch{Set: nums(1, 1), Items: section(FetchSection, false,
			Section{Text: SectionTextPart, From: 5, Count: 9223372036854775802, Cut: true})}},
		{"FETCH 1 BINARY.PEEK[1]<0.1>", "FETCH",
			&Fetch{Set: nums(1, 1), Items: section(FetchBinary, true, Section{Part: []int{1}, Count: 1, Cut: true})}},
		{"FETCH 1 BINARY.SIZE[2]", "FETCH",
			&Fetch{Set: nums(1, 1), Items: section(FetchBinarySize, true, Section{Part: []int{2}})}},

		{"SEARCH ALL", "SEARCH", &Search{}},
		{"UID SEARCH UNSEEN", "SEARCH", &Search{UID: true, Key: not(systemFlag("SEEN"))}},
		{"SEARCH 1:5", "SEARCH", &Search{Key: SearchKey{Op: SearchSeq, Set: nums(1, 5)}}},
		{"SEARCH $", "SEARCH", &Search{Key: SearchKey{Op: SearchSeq, Set: Set{Saved: true}}}},
		{"SEARCH UID 7", "SEARCH", &Search{Key: SearchKey{Op: SearchUID, Set: nums(7, 7)}}},
		{"SEARCH CHARSET utf-8 SUBJECT {2}\r\n\xc3\xa9", "SEARCH",
			&Search{Charset: "utf-8", Key: SearchKey{Op: SearchEnvelope, Field: "Subject", Text: "é"}}},
		{"SEARCH OR FROM a (NOT SEEN DELETED)", "SEARCH", &Search{Key: SearchKey{Op: SearchOr, Keys: []SearchKey{
			{Op: SearchEnvelope, Field: "From", Text: "a"}, {Keys: []SearchKey{not(systemFlag("SEEN")), systemFlag("DELETED")}}}}}},
		{`SEARCH SINCE 1-Feb-2024 BEFORE "01-mar-2024" LARGER 10`, "SEARCH", &Search{Key: SearchKey{Keys: []SearchKey{
			{Op: SearchSince, Date: day(2024, 2, 1)}, {Op: SearchBefore, Date: day(2024, 3, 1)}, {Op: SearchLarger, Number: 10}}}}},
		{"SEARCH RETURN () ALL", "SEARCH", &Search{Return: &SearchReturn{All: true}}},
		{"SEARCH RETURN (MIN MAX COUNT SAVE) ALL", "SEARCH", &Search{Return: &SearchReturn{Min: true, Max: true, Count: true, Save: true}}},
		{"SEARCH RETURN (PARTIAL 500:1 UPDATE CONTEXT RELEVANCY) FUZZY TEXT a", "SEARCH", &Search{
			Return: &SearchReturn{Partial: &Partial{500, 1}, Update: true, Context: true, Relevancy: true},
			Key:    SearchKey{Op: SearchText, Fuzzy: true, Text: "a"}}},
		{"SEARCH RETURN (update(uid flags) COUNT) ALL", "SEARCH", &Search{
			Return: &SearchReturn{Update: true, Fetch: items(FetchUID, FetchFlags), Count: true}}},
		{`SEARCH MODSEQ "/flags/\\Draft" all 7`, "SEARCH",
			&Search{Key: SearchKey{Op: SearchModSeq, Entry: `/flags/\Draft`, EntryOf: "all", Number: 7}}},
		{"SEARCH MODSEQ 9", "SEARCH", &Search{Key: SearchKey{Op: SearchModSeq, Number: 9}}},
		{"SEARCH NEW OLD", "SEARCH", &Search{Key: SearchKey{Keys: []SearchKey{
			{Keys: []SearchKey{{Op: SearchRecent}, not(systemFlag("SEEN"))}}, not(SearchKey{Op: SearchRecent})}}}},
		{"SEARCH KEYWORD $Junk UNKEYWORD x", "SEARCH", &Search{Key: SearchKey{Keys: []SearchKey{
			{Op: SearchKeyword, Text: "$Junk"}, not(SearchKey{Op: SearchKeyword, Text: "x"})}}}},
		{"SEARCH YOUNGER 5 OLDER 6 EMAILID M1 THREADID T1 SAVEDATESUPPORTED SAVEDON 2-Jan-2025 HEADER X-A \"\"", "SEARCH",
			&Search{Key: SearchKey{Keys: []SearchKey{{Op: SearchYounger, Number: 5}, {Op: SearchOlder, Number: 6},
				{Op: SearchEmailID, Text: "M1"}, {Op: SearchThreadID, Text: "T1"}, {Op: SearchSaveDateSupported},
				{Op: SearchSavedOn, Date: day(2025, 1, 2)}, {Op: SearchHeader, Field: "X-A"}}}}},
		{"ESEARCH UNSEEN", "ESEARCH", &Search{UID: true, In: &Sources{[]Filter{{}}}, Return: &SearchReturn{All: true},
			Key: not(systemFlag("SEEN"))}},
		{`ESEARCH IN (mailboxes "a" subtree-one b personal) RETURN (COUNT) ALL`, "ESEARCH", &Search{UID: true,
			In:     &Sources{[]Filter{{FilterMailboxes, []string{"a"}}, {FilterSubtreeOne, []string{"b"}}, {Kind: FilterPersonal}}},
			Return: &SearchReturn{Count: true}}},
		{"SORT (reverse DATE SUBJECT) UTF-8 ALL", "SORT",
			&Sort{By: []SortKey{{true, "DATE"}, {false, "SUBJECT"}}, Charset: "UTF-8"}},
		{"UID SORT RETURN (COUNT) (DISPLAYFROM) UTF-8 1", "SORT", &Sort{UID: true, Return: &SearchReturn{Count: true},
			By: []SortKey{{false, "DISPLAYFROM"}}, Charset: "UTF-8", Key: SearchKey{Op: SearchSeq, Set: nums(1, 1)}}},
		{"THREAD references US-ASCII ALL", "THREAD", &Thread{Algorithm: "REFERENCES", Charset: "US-ASCII"}},
		{`CANCELUPDATE "a1" "a2"`, "CANCELUPDATE", &CancelUpdate{[]string{"a1", "a2"}}},

		{"APPEND inbox {1}\r\nx", "APPEND", &Append{"INBOX"}},
		{"REPLACE 3 a {1}\r\nx", "REPLACE", &Replace{false, 3, "a"}},
		{"UID REPLACE * a {1}\r\nx", "REPLACE", &Replace{true, 0, "a"}},
	} {
		got, err := decode("a1 " + tt.line + "\r\n")
		if err != nil {
			t.Errorf("%q: %v", tt.line, err)
			continue
		}
		want := Command{Tag: "a1", Name: tt.name, Args: tt.args}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%q:\ngot  %+v %+v\nwant %+v %+v", tt.line, got, got.Args, want, want.Args)
		}
	}
}

func TestEnd(t *testing.T) {
	for input, want := range map[string]error{
		"": io.EOF, "a1 NO": io.ErrUnexpectedEOF, "a1 LOGIN {5}\r\nab": io.ErrUnexpectedEOF,
	} {
		if _, err := decode(input); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", input, err, want)
		}
	}
}
