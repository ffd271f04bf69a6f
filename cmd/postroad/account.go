package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"reflect"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"postroad"
	"postroad/internal/config"
	"postroad/internal/control"
)

func (a *app) accountCommands() *cobra.Command {
	return a.group("account", "the people and programs that have mailboxes",
		a.accountAdd(), a.accountList(), a.accountShow(), a.accountPassword(),
		a.accountDisable(), a.accountEnable(), a.accountSet(), a.accountForward(), a.accountDelegate(),
		a.appPasswordCommands(), a.accountRemove())
}

// madeAccount is an account with the password that was generated for it.
type madeAccount struct {
	control.Account
	Password string `json:"password,omitempty"`
}

func (a *app) accountAdd() *cobra.Command {
	var generate bool
	var quota string
	var messages int64
	cmd := command{
		use: "add ADDRESS", short: "make an account with its mailboxes", args: cobra.ExactArgs(1),
		long: `Make an account with its mailboxes. The password is asked for twice on a
terminal, or read from the first line of standard input.`,
		example: `postroad account add carol@example.org
postroad account add carol@example.org --generate
pass show mail/carol | postroad account add carol@example.org --quota 5GB`,
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			octets, err := parseQuota(quota)
			if err != nil {
				return err
			}
			password, err := a.choosePassword(ctx, args[0], generate)
			if err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				acct, err := svc.AddAccount(ctx, control.NewAccount{
					Address: args[0], Password: password, Quota: octets, MaxMessages: messages,
				})
				if err != nil {
					return err
				}
				return a.showMade("added", acct, password, generate)
			})
		},
	}.cobra()
	cmd.Flags().BoolVar(&generate, "generate", false, "make up a password and print it")
	cmd.Flags().StringVar(&quota, "quota", "0", "how much the account may hold, as in 5GB; 0 is no limit")
	cmd.Flags().Int64Var(&messages, "max-messages", 0, "how many messages it may hold; 0 is no limit")
	return cmd
}

func parseQuota(s string) (int64, error) {
	octets, err := config.ParseSize(s)
	if err != nil {
		return 0, usagef("quota: %v", err)
	}
	return octets, nil
}

func (a *app) choosePassword(ctx context.Context, address string, generate bool) (string, error) {
	if generate {
		return postroad.NewPassword(), nil
	}
	return a.newPassword(ctx, address)
}

func (a *app) showMade(verb string, acct control.Account, password string, generated bool) error {
	made := madeAccount{Account: acct}
	if generated {
		made.Password = password
	}
	return a.show(made, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s\n", verb, clean(acct.Address))
		if generated {
			fmt.Fprintf(w, "password: %s\n", password)
		}
	})
}

func (a *app) accountList() *cobra.Command {
	return command{
		use: "list [DOMAIN]", short: "list accounts", args: cobra.MaximumNArgs(1),
		example: "postroad account list\npostroad account list example.org --json", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			return list(a, svc.Accounts(ctx, first(args)), []string{"ADDRESS", "MESSAGES", "SIZE", "QUOTA", "STATE", "CREATED"}, func(t *table, v control.Account) {
				t.row(v.Address, v.Messages, size(v.Octets), showQuota(v), showState(v), when(v.Created))
			}, "no accounts; `postroad account add` makes one")
		}),
	}.cobra()
}

func first(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}

// showQuota is what an account may hold; "-" is all it likes.
func showQuota(v control.Account) string {
	var limits []string
	if v.Quota > 0 {
		limits = append(limits, size(v.Quota))
	}
	if v.MaxMessages > 0 {
		limits = append(limits, count(v.MaxMessages, "message"))
	}
	return cmp.Or(strings.Join(limits, ", "), "-")
}

func showState(v control.Account) string {
	state := "enabled"
	if v.Disabled {
		state = "disabled"
	}
	if v.Admin {
		state += ", admin"
	}
	if v.AppOnly {
		state += ", app passwords only"
	}
	return state
}

// accountDetails is an account with its mailboxes.
type accountDetails struct {
	control.Account
	Forward   *control.Forward  `json:"forward,omitempty"`
	Mailboxes []control.Mailbox `json:"mailboxes"`
}

func (a *app) accountShow() *cobra.Command {
	return command{
		use: "show ADDRESS", short: "show an account and its mailboxes", args: cobra.ExactArgs(1),
		example: "postroad account show alice@example.test", complete: a.completing(false, accountNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			acct, err := svc.Account(ctx, args[0])
			if err != nil {
				return err
			}
			boxes, err := svc.Mailboxes(ctx, args[0])
			if err != nil {
				return err
			}
			forward, err := forwardOf(ctx, svc, acct.Address)
			if err != nil {
				return err
			}
			details := accountDetails{acct, forward, boxes}
			return a.show(details, func(w io.Writer) { showAccount(w, details) })
		}),
	}.cobra()
}

func showAccount(w io.Writer, d accountDetails) {
	showSettings(w, d.Account)
	if d.Forward != nil {
		fmt.Fprintf(w, "forwards to %s and keeps %s\n", clean(strings.Join(d.Forward.Targets, ", ")), copies(*d.Forward))
	}
	fmt.Fprintln(w)
	t := mailboxTable(w)
	for _, m := range d.Mailboxes {
		mailboxRow(t, m)
	}
	flush(t)
}

func showSettings(w io.Writer, acct control.Account) {
	fmt.Fprintf(w, "%s, %s, made %s\n", clean(acct.Address), showState(acct), when(acct.Created))
	fmt.Fprint(w, count(acct.Messages, "message"))
	if acct.MaxMessages > 0 {
		fmt.Fprintf(w, " of %d", acct.MaxMessages)
	}
	fmt.Fprintf(w, ", %s", size(acct.Octets))
	if acct.Quota > 0 {
		fmt.Fprintf(w, " of %s", size(acct.Quota))
	}
	fmt.Fprintln(w)
	if len(acct.Hidden) > 0 {
		fmt.Fprintf(w, "IMAP clients are not told of %s\n", clean(strings.Join(acct.Hidden, ", ")))
	}
	showSending(w, acct)
}

// ofMost is a number and what it may be: "3 of 1000 messages".
func ofMost(n, most int64, noun string) string {
	if most == 0 {
		return fmt.Sprintf("%d %s", n, noun)
	}
	return fmt.Sprintf("%d of %d %s", n, most, noun)
}

// showSending tells what an account has sent today, and what was set for it.
func showSending(w io.Writer, acct control.Account) {
	if sent, most := acct.SentToday, acct.DailyMost; most != (control.SentToday{}) {
		fmt.Fprintf(w, "sent today: %s, to %s, of which %s\n", ofMost(sent.Messages, most.Messages, "messages"),
			ofMost(sent.Recipients, most.Recipients, "recipients"), ofMost(sent.New, most.New, "new"))
	}
	for _, x := range []struct {
		limit *int64
		what  string
	}{
		{acct.Daily.Messages, "messages"},
		{acct.Daily.Recipients, "recipients"},
		{acct.Daily.New, "new recipients"},
	} {
		switch {
		case x.limit == nil:
		case *x.limit == 0:
			fmt.Fprintf(w, "%s in a day: no limit\n", x.what)
		default:
			fmt.Fprintf(w, "%s in a day: at most %d\n", x.what, *x.limit)
		}
	}
	if acct.SaveSent != "" {
		fmt.Fprintf(w, "a copy of what it sends in its Sent mailbox: %s\n", clean(acct.SaveSent))
	}
}

func (a *app) accountPassword() *cobra.Command {
	var generate bool
	cmd := command{
		use: "passwd ADDRESS", short: "replace an account's password", args: cobra.ExactArgs(1),
		long: `Replace an account's password. It is asked for twice on a terminal, or read from
the first line of standard input.`,
		example:  "postroad account passwd alice@example.test\npostroad account passwd alice@example.test --generate",
		complete: a.completing(false, accountNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			acct, err := a.account(ctx, args[0])
			if err != nil {
				return err
			}
			password, err := a.choosePassword(ctx, acct.Address, generate)
			if err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				if err := svc.SetPassword(ctx, control.Credential{Address: args[0], Password: password}); err != nil {
					return err
				}
				return a.showMade("new password for", acct, password, generate)
			})
		},
	}.cobra()
	cmd.Flags().BoolVar(&generate, "generate", false, "make up a password and print it")
	return cmd
}

// account looks an account up before a question is asked. The data directory is not
// held open while somebody thinks about the answer.
func (a *app) account(ctx context.Context, address string) (acct control.Account, err error) {
	err = a.with(ctx, func(ctx context.Context, svc control.Service) error {
		acct, err = svc.Account(ctx, address)
		return err
	})
	return acct, err
}

func (a *app) accountDisable() *cobra.Command {
	return a.setDisabled("disable", "keep an account from logging in; its mail still arrives", true, "disabled")
}

func (a *app) accountEnable() *cobra.Command {
	return a.setDisabled("enable", "let an account log in again", false, "enabled")
}

func (a *app) setDisabled(verb, short string, disabled bool, done string) *cobra.Command {
	return command{
		use: verb + " ADDRESS", short: short, args: cobra.ExactArgs(1),
		example: "postroad account " + verb + " alice@example.test", complete: a.completing(false, accountNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if err := svc.SetDisabled(ctx, control.SetDisabled{Address: args[0], Disabled: disabled}); err != nil {
				return err
			}
			return a.did(done, args[0])
		}),
	}.cobra()
}

func (a *app) accountSet() *cobra.Command {
	var quota, saveSent string
	var messages int64
	var admin, appOnly bool
	var daily dailyFlags
	var set control.SetAccount
	var cmd *cobra.Command
	cmd = command{
		use: "set ADDRESS", short: "change an account's settings", args: cobra.ExactArgs(1),
		long: `Change an account's settings; what no flag names stays as it is. "default" makes a
setting what the configuration says for all accounts.`,
		example: `postroad account set alice@example.test --quota 5GB --max-messages 100000
postroad account set shop@example.test --daily-messages 20000 --daily-recipients 0 --daily-new-recipients 0
postroad account set alice@example.test --save-sent on
postroad account set alice@example.test --hide-capability CONDSTORE,QRESYNC
postroad account set alice@example.test --show-capability CONDSTORE
postroad account set alice@example.test --admin
postroad account set alice@example.test --app-passwords-only`,
		complete: a.completing(false, accountNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) (err error) {
			set.Address = args[0]
			given := cmd.Flags().Changed
			if given("quota") {
				octets, err := parseQuota(quota)
				if err != nil {
					return err
				}
				set.Quota = &octets
			}
			if given("max-messages") {
				set.MaxMessages = &messages
			}
			if given("admin") {
				set.Admin = &admin
			}
			if given("app-passwords-only") {
				set.AppOnly = &appOnly
			}
			if given("save-sent") {
				if set.SaveSent, err = parseSwitch(saveSent); err != nil {
					return err
				}
			}
			if set.Daily, err = daily.parse(); err != nil {
				return err
			}
			return a.setAccount(ctx, set)
		},
	}.cobra()
	cmd.Flags().StringVar(&quota, "quota", "", "how much the account may hold, as in 5GB; 0 is no limit")
	cmd.Flags().Int64Var(&messages, "max-messages", 0, "how many messages it may hold; 0 is no limit")
	cmd.Flags().BoolVar(&admin, "admin", false, "whether it may set quotas over IMAP (--admin=false takes that back)")
	cmd.Flags().BoolVar(&appOnly, "app-passwords-only", false, "whether its own password opens nothing (=false takes that back)")
	cmd.Flags().StringVar(&saveSent, "save-sent", "", "whether what it sends is copied into its Sent mailbox: on, off or default")
	cmd.Flags().StringVar(&daily.messages, "daily-messages", "", "how many messages it may send in a day; 0 is no limit")
	cmd.Flags().StringVar(&daily.recipients, "daily-recipients", "", "to how many recipients in all; 0 is no limit")
	cmd.Flags().StringVar(&daily.fresh, "daily-new-recipients", "", "to how many elsewhere that it has not written to before; 0 is no limit")
	cmd.Flags().StringSliceVar(&set.Hide, "hide-capability", nil, "IMAP capabilities not to tell its clients of, for one that mishandles them")
	cmd.Flags().StringSliceVar(&set.Show, "show-capability", nil, "hidden IMAP capabilities to tell them of again")
	return cmd
}

// dailyFlags are what may be said of daily limits; what is empty was not said.
type dailyFlags struct{ messages, recipients, fresh string }

func (f *dailyFlags) parse() (d control.DailyLimits, err error) {
	for _, x := range []struct {
		flag, text string
		to         **int64
	}{
		{"daily-messages", f.messages, &d.Messages},
		{"daily-recipients", f.recipients, &d.Recipients},
		{"daily-new-recipients", f.fresh, &d.New},
	} {
		if *x.to, err = parseDaily(x.text); err != nil {
			return d, usagef("--%s: %v", x.flag, err)
		}
	}
	return d, nil
}

func parseDaily(text string) (*int64, error) {
	switch text {
	case "":
		return nil, nil
	case "default":
		n := int64(control.AsConfigured)
		return &n, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 {
		return nil, fmt.Errorf("%q is not a number; 0 is no limit, and \"default\" what is configured for all", text)
	}
	return &n, nil
}

func parseSwitch(text string) (*string, error) {
	switch text {
	case "on", "off":
	case "default":
		text = ""
	default:
		return nil, usagef("--save-sent: %q is neither on, off nor default", text)
	}
	return &text, nil
}

func (a *app) setAccount(ctx context.Context, set control.SetAccount) error {
	if reflect.DeepEqual(set, control.SetAccount{Address: set.Address}) {
		return usagef("nothing to change: give a setting, as --help shows")
	}
	return a.with(ctx, func(ctx context.Context, svc control.Service) error {
		acct, err := svc.SetAccount(ctx, set)
		if err != nil {
			return err
		}
		return a.show(acct, func(w io.Writer) { showSettings(w, acct) })
	})
}

func (a *app) accountRemove() *cobra.Command {
	var yes bool
	cmd := command{
		use: "remove ADDRESS", short: "remove an account with all its mail, for good", args: cobra.ExactArgs(1),
		example: "postroad account remove carol@example.org", complete: a.completing(false, accountNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			acct, err := a.account(ctx, args[0])
			if err != nil {
				return err
			}
			if err := a.sure(ctx, yes, fmt.Sprintf("remove %s with %s?", acct.Address, count(acct.Messages, "message"))); err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				if err := a.during("removing "+acct.Address, func() error { return svc.RemoveAccount(ctx, args[0]) }); err != nil {
					return err
				}
				return a.did("removed", acct.Address)
			})
		},
	}.cobra()
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
