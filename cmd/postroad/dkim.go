package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) dkimCommands() *cobra.Command {
	return a.group("dkim", "keys that sign the mail of our domains (DKIM)",
		a.dkimAdd(), a.dkimList(), a.dkimRecords(), a.dkimCheck(), a.dkimRotate(), a.dkimActivate(), a.dkimImport(), a.dkimRemove())
}

func (a *app) dkimAdd() *cobra.Command {
	var n control.NewDKIMKeys
	cmd := command{
		use: "add DOMAIN", short: "make keys for a domain", args: cobra.ExactArgs(1),
		long: `Make keys for a domain and print the records that the DNS must have. A key signs once
its record was seen there, for which the server looks every five minutes; "postroad dkim
check" looks at once.`,
		example: "postroad dkim add example.org\npostroad dkim add example.org --selector mail --algorithm rsa", complete: a.completing(false, domainNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			n.Domain = args[0]
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				return a.showNewKeys(svc.AddDKIMKeys(ctx, n))
			})
		},
	}.cobra()
	cmd.Flags().StringVar(&n.Selector, "selector", "", "the key's name in the DNS (default: one with today's date)")
	cmd.Flags().StringVar(&n.Algorithm, "algorithm", "both", "rsa, which everybody verifies; ed25519; or both")
	return cmd
}

// showNewKeys prints the records of keys that wait for them.
func (a *app) showNewKeys(keys []control.DKIMKey, err error) error {
	if err != nil {
		return err
	}
	return a.showKeys(keys, func(w io.Writer) {
		fmt.Fprint(w, "Publish these records, as they are or in your provider's form:\n\n")
		showRecords(w, keys)
		fmt.Fprint(w, "\nThe keys sign once they are seen there: postroad dkim check\n")
	})
}

// showKeys prints keys: with --json each on its line, as in every list.
func (a *app) showKeys(keys []control.DKIMKey, human func(w io.Writer)) error {
	if a.json {
		return list(a, each(keys, nil), nil, nil, "")
	}
	human(a.out)
	return nil
}

// showRecords prints records as lines of a zone file. A provider's form wants the text alone, without quotes.
func showRecords(w io.Writer, keys []control.DKIMKey) {
	for _, k := range keys {
		fmt.Fprintf(w, "; %s, %s\n%s\n", clean(k.Algorithm), clean(k.State), clean(k.Zone))
	}
}

func (a *app) dkimList() *cobra.Command {
	return command{
		use: "list [DOMAIN]", short: "list keys", args: cobra.MaximumNArgs(1),
		long: `List keys. One that is waiting signs nothing until the DNS has its record; an active one
signs; an old one has signed what may still be on its way, so its record must stay; the
record of a retired one may be removed, and then it is forgotten.`,
		example: "postroad dkim list\npostroad dkim list example.org --json", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			return list(a, svc.DKIMKeys(ctx, first(args)), keyHeads, keyRow, "no keys; `postroad dkim add` makes some")
		}),
	}.cobra()
}

var keyHeads = []string{"DOMAIN", "SELECTOR", "ALGORITHM", "BITS", "STATE", "SINCE", "REMARK"}

func keyRow(t *table, k control.DKIMKey) {
	remark := k.Finding
	switch k.State {
	case "old":
		remark = cmp.Or(remark, "its record must stay until "+when(k.Until))
	case "retired":
		remark = cmp.Or(remark, "its record may be removed: "+k.Name)
	}
	t.row(k.Domain, k.Selector, k.Algorithm, k.Bits, k.State, when(k.Since), cmp.Or(remark, "-"))
}

func (a *app) dkimRecords() *cobra.Command {
	return command{
		use: "records DOMAIN", short: "print the records that the DNS must have", args: cobra.ExactArgs(1),
		long:    `Print the records that the DNS must have, as lines of a zone file. With --json each has its name and its text alone too.`,
		example: "postroad dkim records example.org", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			var keys []control.DKIMKey
			for k, err := range svc.DKIMKeys(ctx, args[0]) {
				if err != nil {
					return err
				}
				if k.State != "retired" {
					keys = append(keys, k)
				}
			}
			if len(keys) == 0 {
				return control.Errorf(control.NotFound, "%s has no keys", args[0]).WithHint("`postroad dkim add` makes some")
			}
			return a.showKeys(keys, func(w io.Writer) { showRecords(w, keys) })
		}),
	}.cobra()
}

func (a *app) dkimCheck() *cobra.Command {
	return command{
		use: "check [DOMAIN]", short: "look for the records in the DNS now", args: cobra.MaximumNArgs(1),
		long: `Look for the records of keys in the DNS now, and let those sign that have waited for
theirs. It fails when a record that is needed is not there.`,
		example: "postroad dkim check\npostroad dkim check example.org", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			keys, err := svc.CheckDKIMKeys(ctx, first(args))
			return a.showChecked(keys, err)
		}),
	}.cobra()
}

// showChecked lists keys, and fails when one of them has no record.
func (a *app) showChecked(keys []control.DKIMKey, err error) error {
	if err := list(a, each(keys, err), keyHeads, keyRow, "no keys; `postroad dkim add` makes some"); err != nil {
		return err
	}
	missing := 0
	for _, k := range keys {
		if k.Finding != "" {
			missing++
		}
	}
	if missing > 0 {
		return control.Errorf(control.Refused, "%s without a good record", count(missing, "key")).WithHint("each remark says why; `postroad dkim records DOMAIN` prints what must be there")
	}
	return nil
}

func (a *app) dkimRotate() *cobra.Command {
	return command{
		use: "rotate DOMAIN", short: "make new keys in the place of those that sign", args: cobra.ExactArgs(1),
		long: `Make new keys in the place of those that sign, and print their records. The old ones
sign until the new ones are seen in the DNS. Their records must stay for some days after
that (dkim.keep_old), as mail is on its way that they signed; "postroad dkim list" and
"postroad status" say when they may go.`,
		example: "postroad dkim rotate example.org", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			return a.showNewKeys(svc.RotateDKIMKeys(ctx, args[0]))
		}),
	}.cobra()
}

func (a *app) dkimActivate() *cobra.Command {
	var force bool
	cmd := command{
		use: "activate DOMAIN [SELECTOR]", short: "let keys sign that wait for their records", args: cobra.RangeArgs(1, 2),
		example: "postroad dkim activate example.org\npostroad dkim activate example.org 20261120-rsa --force", complete: a.completing(false, domainNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				n := control.DKIMKeyName{Domain: args[0], Selector: first(args[1:]), Force: force}
				keys, err := svc.ActivateDKIMKeys(ctx, n)
				return a.showChecked(keys, err)
			})
		},
	}.cobra()
	cmd.Flags().BoolVar(&force, "force", false, "without a look at the DNS, as where this machine is shown another one than the world")
	return cmd
}

// maxKeyFile is far beyond any key.
const maxKeyFile = 64 << 10

func (a *app) dkimImport() *cobra.Command {
	return command{
		use: "import DOMAIN SELECTOR FILE", short: "take over a key of another program", args: cobra.ExactArgs(3),
		long: `Take over a private key that another program has signed with, RSA or Ed25519, from a
PEM file without a password. It signs once its record is seen in the DNS, for which the
server looks within a minute.`,
		example: "postroad dkim import example.org mail /etc/opendkim/keys/mail.private",
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			text, err := readKey(args[2])
			if err != nil {
				return err
			}
			k, err := svc.ImportDKIMKey(ctx, control.DKIMImport{Domain: args[0], Selector: args[1], PEM: text})
			if err != nil {
				return err
			}
			return a.show(k, func(w io.Writer) {
				fmt.Fprintf(w, "imported; the DNS should have this record, and the key signs once it is seen there: postroad dkim check\n\n")
				showRecords(w, []control.DKIMKey{k})
			})
		}),
	}.cobra()
}

func readKey(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var b strings.Builder
	_, err = io.Copy(&b, io.LimitReader(f, maxKeyFile))
	return b.String(), err
}

func (a *app) dkimRemove() *cobra.Command {
	var yes bool
	cmd := command{
		use: "remove DOMAIN SELECTOR", short: "remove a key at once, for good", args: cobra.ExactArgs(2),
		long: `Remove a key at once, for good: it signs no more. What it signed can be verified as long
as its record stays in the DNS.`,
		example: "postroad dkim remove example.org 20261120-rsa", complete: a.completing(false, domainNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			if err := a.sure(ctx, yes, fmt.Sprintf("remove the key %s of %s for good?", args[1], args[0])); err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				if err := svc.RemoveDKIMKeys(ctx, control.DKIMKeyName{Domain: args[0], Selector: args[1]}); err != nil {
					return err
				}
				return a.did("removed", args[1])
			})
		},
	}.cobra()
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// showSigning tells whose mail is signed.
func showSigning(s control.DKIMStatus) string {
	words := "the mail of " + count(s.Signing, "domain") + " is signed"
	if len(s.Unsigned) > 0 {
		words += "; without keys: " + strings.Join(s.Unsigned, ", ") + " (postroad dkim add)"
	}
	if len(s.Waiting) > 0 {
		words += "; keys wait for their DNS records: " + strings.Join(s.Waiting, ", ") + " (postroad dkim check)"
	}
	return words
}
