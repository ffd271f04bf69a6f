package dsn

import (
	"strings"

	"postroad/internal/envelope"
)

// An explanation is what a status code (RFC 3463, and what was registered since) means to the person who has sent a message.
type explanation struct {
	means string // what is the matter
	then  string // what they can do about it
}

// What is of use in several places of the table.
const (
	tellAdministrator = "Please show this report to the administrator of your mail server."
	askAnotherWay     = "Please ask the recipient in another way, for example by telephone."
	tryLater          = "Please try again later."
	sendSmaller       = "Please send it smaller: put large files where the recipient can fetch them, and send a link."
	refusedByRule     = "The recipient's server refuses the message by a rule of its own."
	notProven         = "The recipient's server finds no proof that the message comes from whom it names as its sender."
	plainLetters      = "The recipient's server takes no letters beyond plain ASCII in addresses and header fields."
	askWhichRule      = "If its answer does not say which, ask the recipient in another way, or show this report to your administrator."
	mayBeAnother      = "The address may belong to somebody else by now, and the message says that it must not go to them."
)

// explanations are by code without its class, which says only whether it is for good.
var explanations = map[string]explanation{
	"1.0":  {"The recipient's server does not accept the address.", "Please check the address for a spelling mistake."},
	"1.1":  {"There is no such address.", "Please look for a spelling mistake before the @. If there is none, the mailbox may have been closed."},
	"1.2":  {"The domain does not exist, or has no mail server.", "Please look for a spelling mistake after the @."},
	"1.3":  {"The address is malformed.", "Please look for a spelling mistake or a missing part."},
	"1.4":  {"The address fits more than one person.", "Please ask the recipient for the exact address."},
	"1.6":  {"The recipient has moved and left no new address.", askAnotherWay},
	"1.7":  {"The recipient's server takes your own address for malformed.", "Please check your own address in your mail program."},
	"1.8":  {"The recipient's server does not accept your own address.", tellAdministrator},
	"1.10": {"The domain does not take mail.", "Please look for a spelling mistake after the @, or use another address of the recipient."},

	"2.0": {"The mailbox cannot be used.", tryLater},
	"2.1": {"The mailbox is switched off.", askAnotherWay},
	"2.2": {"The mailbox is full.", "Please try again in a few days, or tell the recipient in another way."},
	"2.3": {"The message is too large for the mailbox.", sendSmaller},
	"2.4": {"The mailing list cannot pass the message on.", "Please tell the owner of the list."},

	"3.0": {"The recipient's server has a fault of its own.", tryLater},
	"3.1": {"The recipient's server has no room left.", tryLater},
	"3.2": {"The recipient's server takes no mail at present.", tryLater},
	"3.3": {"The recipient's server cannot do what the message asks for.", "Please send it without that, for example without a deadline."},
	"3.4": {"The message is too large for the recipient's server.", sendSmaller},
	"3.5": {"The recipient's server is not set up for this address.", askAnotherWay},

	"4.0": {"The way to the recipient's server is disturbed.", tryLater},
	"4.1": {"The recipient's server did not answer.", tryLater},
	"4.2": {"The connection to the recipient's server broke.", tryLater},
	"4.3": {"The recipient's server could not be found.", tryLater},
	"4.4": {"There is no way to the recipient's server.", "Please look for a spelling mistake after the @."},
	"4.5": {"The recipient's server is too busy.", tryLater},
	"4.6": {"The message went in a circle.", "Please tell the administrator of your mail server: a forward leads back to where it began."},
	"4.7": {"The message could not be delivered in the time that there was for it.", tryLater},

	"5.0": {"The recipient's server and ours did not understand each other.", tellAdministrator},
	"5.3": {"The message has too many recipients for the server.", "Please send it to fewer people at a time."},

	"6.0":  {"The recipient's server does not take what the message contains.", "Please send it in another form, for example without attachments."},
	"6.1":  {"The recipient's server does not take what the message contains.", "Please send it in another form, for example without attachments."},
	"6.3":  {"The message would have to be converted for the recipient's server, which is not possible.", "Please send it in another form."},
	"6.7":  {plainLetters, "Please use addresses of plain letters, if you and the recipient have such."},
	"6.9":  {plainLetters, "Please use addresses of plain letters, if you and the recipient have such."},
	"6.11": {"The recipient's server takes the message for malformed.", tellAdministrator},

	"7.0":  {refusedByRule, askWhichRule},
	"7.1":  {refusedByRule, askWhichRule},
	"7.2":  {"You may not write to this mailing list.", "Please ask the owner of the list to let you."},
	"7.4":  {"The connection cannot be made as safe as it has to be.", tellAdministrator},
	"7.5":  {"The connection cannot be made as safe as it has to be.", tellAdministrator},
	"7.8":  {"Our server could not log in at the next one.", tellAdministrator},
	"7.9":  {"Our server could not log in at the next one.", tellAdministrator},
	"7.10": {"The connection cannot be made as safe as it has to be.", tellAdministrator},
	"7.13": {"The mailbox is switched off.", askAnotherWay},
	"7.15": {"The recipient's server takes only urgent messages at present.", tryLater},
	"7.16": {"The message is too large for its priority.", sendSmaller},
	"7.17": {mayBeAnother, askAnotherWay},
	"7.18": {mayBeAnother, askAnotherWay},
	"7.19": {"The next server cannot check whether the address still belongs to the same person, as the message demands.", askAnotherWay},
	"7.20": {notProven, tellAdministrator},
	"7.21": {notProven, tellAdministrator},
	"7.22": {notProven, tellAdministrator},
	"7.23": {notProven, tellAdministrator},
	"7.24": {notProven, tellAdministrator},
	"7.25": {"The recipient's server finds no name for the address of ours.", tellAdministrator},
	"7.26": {notProven, tellAdministrator},
	"7.27": {"The recipient's server does not accept your own address, as its domain takes no mail.", tellAdministrator},
	"7.28": {"The recipient's server gets more mail from ours, or for the recipient, than it takes.", tryLater},
	"7.29": {notProven, tellAdministrator},
	"7.30": {"Not all of the way to the recipient is encrypted, as the message demands.", "Please send it without this demand, if that is right for it."},
}

// ours are for what no other server has said: an administrator's order, a route that rejects.
var ours = map[string]explanation{
	"7.1": {
		"This mail server does not deliver the message: its administrator has decided so.",
		"If the reason does not say what to do, show this report to the administrator.",
	},
}

// byCode are for replies whose status code says no more than its class.
var byCode = map[int]explanation{
	550: {"The recipient's server does not accept the address or the message.", "Please check the address for a spelling mistake, or ask the recipient in another way."},
	551: {"The recipient is not at this server.", askAnotherWay},
	552: {"The mailbox is full, or the message is too large for it.", sendSmaller},
	553: {"The recipient's server does not accept the address.", "Please check the address for a spelling mistake."},
	554: {refusedByRule, askWhichRule},
	556: {"The domain does not take mail.", "Please look for a spelling mistake after the @, or use another address of the recipient."},
}

// explain returns what a recipient's status means; no words when nothing is known.
func explain(status string, reply envelope.Reply) explanation {
	_, detail, _ := strings.Cut(status, ".")
	if e, ok := ours[detail]; ok && reply.From == "" {
		return e
	}
	if e, ok := explanations[detail]; ok {
		return e
	}
	subject, _, _ := strings.Cut(detail, ".")
	if e, ok := explanations[subject+".0"]; ok && subject != "0" {
		return e
	}
	return byCode[reply.Code]
}
