"""Fetches every message of a mailbox with IMAPClient, whose parser has to understand each item, and compares ENVELOPE
and BODYSTRUCTURE with what Python's email package makes of the message. Prints a line for each that is not alike, and
"ok" with the number of messages at the end.
"""
import email
import email.policy
import email.utils
import re
import sys

from imapclient import IMAPClient

port, user, password, mailbox = sys.argv[1:]
ITEMS = [
    "UID", "FLAGS", "INTERNALDATE", "RFC822.SIZE", "ENVELOPE", "BODY", "BODYSTRUCTURE", "BODY.PEEK[]",
    "BODY.PEEK[HEADER]", "BODY.PEEK[TEXT]", "BODY.PEEK[1]", "BODY.PEEK[1.MIME]",
    "BODY.PEEK[HEADER.FIELDS (FROM SUBJECT)]", "BODY.PEEK[]<5.20>",
]


def unfolded(value):
    return re.sub(r"\r?\n(?=[ \t])", "", value).strip()


def field(message, name):
    """The first field of a name as bytes, or None."""
    for key, value in message.raw_items():
        if key.lower() == name:
            return unfolded(value).encode("utf-8", "surrogateescape")
    return None


def addresses(message, name):
    value = field(message, name)
    if value is None:
        return None
    pairs = email.utils.getaddresses([value.decode("utf-8", "surrogateescape")])
    return [a.encode("utf-8", "surrogateescape").lower() for _, a in pairs if a]


def told(list_):
    """The addresses of an ENVELOPE that are addresses, and not the ends of a group."""
    return [a.mailbox.lower() + b"@" + a.host.lower() for a in list_ or () if a.mailbox and a.host]


def plain(message, name):
    """Whether a field is one that everybody must read alike."""
    value = field(message, name) or b""
    fields = sum(key.lower() == name for key, _ in message.raw_items())
    simple = re.fullmatch(rb'(?:[\w .\'-]+<[\w.+-]+@[\w.-]+>|<?[\w.+-]+@[\w.-]+>?)(?:, *(?:[\w .\'-]+<[\w.+-]+@[\w.-]+>|<?[\w.+-]+@[\w.-]+>?))*', value)
    return fields <= 1 and (not value or simple is not None)


def structure(message):
    if message.get_content_maintype() == "multipart":
        return [structure(part) for part in message.get_payload()]
    return message.get_content_type()


def told_structure(body):
    if body.is_multipart:
        return [told_structure(part) for part in body[0]]
    return (body[0] + b"/" + body[1]).decode().lower()


def sound(message):
    """Whether Python finds no fault with a message from somebody, and each Content-Type is one in plain ASCII."""
    return "from" in message and not any(
        part.defects or not re.fullmatch(r"[\w.+-]+/[\w.+-]+", part.get_content_type())
        or "boundary*" in str(part.get("content-type", ""))
        or part.get_content_maintype() == "multipart" and not part.is_multipart() for part in message.walk())


def compare(data):
    raw = data[b"BODY[]"]
    if len(raw) != data[b"RFC822.SIZE"]:
        yield f"size {data[b'RFC822.SIZE']} of {len(raw)} octets"
    if data[b"BODY[HEADER]"] + data[b"BODY[TEXT]"] != raw:
        yield "header and text are not the message"
    if data[b"BODY[]<5>"] != raw[5:25]:
        yield "a partial is another"
    message = email.message_from_bytes(raw, policy=email.policy.compat32)
    if not sound(message) or b"\0" in raw or re.search(rb"\r(?!\n)|(?<!\r)\n", raw):
        return
    envelope = data[b"ENVELOPE"]
    for name, value in (("subject", envelope.subject), ("message-id", envelope.message_id), ("in-reply-to", envelope.in_reply_to)):
        want = field(message, name)
        if sum(key.lower() == name for key, _ in message.raw_items()) == 1 and (value or b"") != (want or b""):
            yield f"{name} {value!r}, want {want!r}"
    for name, value in (("from", envelope.from_), ("to", envelope.to), ("cc", envelope.cc)):
        if plain(message, name) and told(value) != (addresses(message, name) or []):
            yield f"{name} {told(value)!r}, want {addresses(message, name)!r}"
    if told_structure(data[b"BODYSTRUCTURE"]) != structure(message):
        yield f"structure {told_structure(data[b'BODYSTRUCTURE'])}, want {structure(message)}"


with IMAPClient("127.0.0.1", int(port), ssl=False) as client:
    client.login(user, password)
    client.normalise_times = False
    count = client.select_folder(mailbox, readonly=True)[b"EXISTS"]
    uids = client.search()
    compared = 0
    for first in range(0, len(uids), 50):
        for uid, data in sorted(client.fetch(uids[first:first + 50], ITEMS).items()):
            compared += 1
            for words in compare(data):
                print(f"message {data[b'SEQ']}: {words}")
    assert compared == count, (compared, count)
    print("ok", compared)
