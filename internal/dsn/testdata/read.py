# Reads delivery reports with Python's own parser, and prints of each what a program would act on.
import email
import email.policy
import pathlib
import sys

for name in sorted(sys.argv[1:]):
    message = email.message_from_bytes(pathlib.Path(name).read_bytes(), policy=email.policy.default)
    assert not message.defects, (name, message.defects)
    assert message.get_content_type() == "multipart/report", name
    words, facts, original = list(message.iter_parts())
    assert words.get_content_type() == "text/plain" and len(words.get_content()) > 100, name
    assert max(len(line) for line in words.get_content().splitlines()) < 100, name
    kinds = [facts.get_content_type(), original.get_content_type()]
    print(pathlib.Path(name).stem, message.get_param("report-type"), *kinds)
    if kinds[0] == "message/delivery-status":
        whole, *groups = facts.get_payload()
        assert whole["Reporting-MTA"] and whole["Arrival-Date"], name
        for group in groups:
            assert not group.defects, (name, group.defects)
            print(" ", group["Final-Recipient"], group["Action"], group["Status"])
