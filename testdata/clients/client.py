"""Sends and reads with Python's own libraries; prints "ok" when all was as it should be."""
import imaplib
import smtplib
import ssl
import sys
from email.message import EmailMessage

submission, submissions, imap, imaps, cert, alice, alice_pw, bob, bob_pw = sys.argv[1:]
trust = ssl.create_default_context(cafile=cert)


def letter(subject):
    m = EmailMessage()
    m["From"], m["To"], m["Subject"] = alice, bob, subject
    m.set_content("Grüße aus Python, mit Anhang.\n")
    m.add_attachment(b"\x00\x01" * 5000, maintype="application", subtype="octet-stream", filename="größe.bin")
    return m


def ok(reply):
    assert reply[0] == "OK", reply
    return reply[1]


with smtplib.SMTP("127.0.0.1", int(submission)) as s:
    s.starttls(context=trust)
    s.login(alice, alice_pw)
    assert s.send_message(letter("by starttls")) == {}
    try:
        s.sendmail("mallory@example.test", [bob], "Subject: forged\r\n\r\nx\r\n")
        raise AssertionError("a foreign sender was accepted")
    except smtplib.SMTPSenderRefused as e:
        assert e.smtp_code == 550, e
with smtplib.SMTP_SSL("127.0.0.1", int(submissions), context=trust) as s:
    s.login(alice, alice_pw)
    assert s.send_message(letter("by tls")) == {}
    try:
        s.login(alice, "wrong")
    except smtplib.SMTPException:
        pass

box = imaplib.IMAP4("127.0.0.1", int(imap))
box.starttls(trust)
try:
    box.login(bob, "wrong")
    raise AssertionError("a wrong password was accepted")
except imaplib.IMAP4.error:
    pass
box.login(bob, bob_pw)
for _ in range(1000):
    if int(ok(box.select("INBOX"))[0]) == 3:
        break
assert ok(box.search(None, "SUBJECT", '"by tls"')) == [b"3"] or ok(box.search(None, "SUBJECT", '"by tls"')) == [b"2"]
found = ok(box.search(None, "BODY", '"aus Python"'))[0].split()
assert len(found) == 2, found
assert b"octet-stream" in str(ok(box.fetch(found[0], "(BODYSTRUCTURE)"))).encode()
data = ok(box.fetch(found[0], "(RFC822.SIZE BODY.PEEK[])"))
assert int(data[0][0].split(b"RFC822.SIZE ")[1].split()[0]) == len(data[0][1])
ok(box.store(found[0], "+FLAGS", r"(\Flagged custom)"))
assert ok(box.search(None, "KEYWORD", "custom")) == [found[0]]
ok(box.create("Projekte/Größe".encode("utf-7").decode().replace("+", "&")))
ok(box.copy(found[0], "Archive"))
ok(box.append("Drafts", r"(\Draft)", None, b"Subject: draft\r\n\r\nnot yet\r\n"))
ok(box.store(found[0], "+FLAGS", r"(\Deleted)"))
assert len(ok(box.expunge())) == 1
ok(box.select("Archive"))
assert ok(box.search(None, "FLAGGED")) == [b"1"]
ok(box.close())
box.logout()

with imaplib.IMAP4_SSL("127.0.0.1", int(imaps), ssl_context=trust) as box:
    box.authenticate("PLAIN", lambda _: f"\0{bob}\0{bob_pw}".encode())
    assert int(ok(box.select("Drafts"))[0]) == 1
    names = b" ".join(ok(box.list()))
    assert b'"Projekte/Gr&APYA3w-e"' in names or b"Projekte/Gr&APYA3w-e" in names, names

# The same with names and mail in UTF-8 (RFC 6855).
with imaplib.IMAP4_SSL("127.0.0.1", int(imaps), ssl_context=trust) as box:
    box.login(bob, bob_pw)
    letter8 = "From: jörg@example.test\r\nSubject: Grüße\r\n\r\nÄÖÜ\r\n".encode()
    ok(box.create('"M&APw-ll &- Co/&ZeVnLA-"'))
    # Before ENABLE: after it, imaplib would write its "UTF8 (...)" into the message.
    ok(box.append('"M&APw-ll &- Co/&ZeVnLA-"', r"(\Seen)", None, letter8))
    box.enable("UTF8=ACCEPT")
    assert "Projekte/Größe".encode() in b" ".join(ok(box.list()))
    assert int(ok(box.select('"Müll & Co/日本"'))[0]) == 1
    data = ok(box.fetch("1", "(BODY.PEEK[])"))
    assert data[0][1] == letter8, data
    box.literal = "grüße".encode()
    assert ok(box.uid("SEARCH", "SUBJECT")) == [b"1"]
    assert ok(box.sort("(REVERSE DATE)", "UTF-8", "SEEN")) == [b"1"]
    ok(box.close())
    ok(box.delete('"Müll & Co/日本"'))
print("ok")
