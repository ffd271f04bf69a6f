"""Sends the messages of the working directory with smtplib; prints "ok" when each was taken as it should be."""
import pathlib
import smtplib
import ssl
import sys

mx, submission, submissions, lmtp, cert, alice, password, bob = sys.argv[1:]
trust = ssl.create_default_context(cafile=cert)
HOST = "127.0.0.1"


def text(name):
    return pathlib.Path(name + ".eml").read_bytes()


def send(server, name, **options):
    assert server.sendmail(alice, [bob], text(name), **options) == {}


with smtplib.SMTP(HOST, int(mx)) as s:
    send(s, "clear", mail_options=["BODY=8BITMIME"])
    s.ehlo()  # again, between transactions
    send(s, "utf8", mail_options=["SMTPUTF8", "BODY=8BITMIME", "RET=HDRS", "ENVID=ENV+2B1"],
         rcpt_options=["NOTIFY=SUCCESS,FAILURE", "ORCPT=rfc822;" + bob])
    refused = s.sendmail(alice, ["nobody@example.test", bob, "far@elsewhere.test"], b"Subject: to three\r\n\r\nx\r\n")
    assert {a: r[0] for a, r in refused.items()} == {"nobody@example.test": 550, "far@elsewhere.test": 550}, refused
    try:
        s.sendmail(alice, ["nobody@example.test"], b"x")
        raise AssertionError("a message without recipients was taken")
    except smtplib.SMTPRecipientsRefused:
        pass
    assert s.verify(bob)[0] == 252
    assert s.noop()[0] == 250 and s.help()
    assert not s.has_extn("auth")
with smtplib.SMTP(HOST, int(mx)) as s:
    s.starttls(context=trust)
    assert not s.has_extn("starttls")
    send(s, "starttls")
for mechanism in ["PLAIN", "LOGIN"]:
    with smtplib.SMTP(HOST, int(submission)) as s:
        s.starttls(context=trust)
        s.ehlo()
        s.user, s.password = alice, password
        assert s.auth(mechanism, getattr(s, "auth_" + mechanism.lower()))[0] == 235
        send(s, mechanism)
with smtplib.SMTP_SSL(HOST, int(submissions), context=trust) as s:
    s.login(alice, password)
    send(s, "implicit")
with smtplib.SMTP_SSL(HOST, int(submissions), context=trust) as s:
    s.ehlo()
    s.user, s.password = alice, "wrong"
    try:
        s.auth("LOGIN", s.auth_login)
        raise AssertionError("a wrong password was taken")
    except smtplib.SMTPAuthenticationError as e:
        assert e.smtp_code == 535, e
with smtplib.LMTP(HOST, int(lmtp)) as s:
    send(s, "LMTP")
print("ok")
