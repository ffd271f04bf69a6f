package postroad

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"postroad/internal/account"
	"postroad/internal/durable"
	"postroad/internal/envelope"
	"postroad/internal/mailbox"
	"postroad/internal/mime"
	"postroad/internal/store"
	"postroad/internal/trace"
)

// Credential is an account's address and password.
type Credential struct {
	Address  string `json:"address"`
	Password string `json:"password"`
}

// QuickstartOptions say how a server for trying things out is set up.
type QuickstartOptions struct {
	Config  Config
	Options Options
	Users   []Credential // accounts to have; none means alice@ and bob@example.test with generated passwords
}

// quickstartDomain is the domain of the generated accounts, reserved by RFC 2606.
const quickstartDomain = "example.test"

// OpenQuickstart opens a server that is ready for use at once: the accounts exist
// and have a welcome message. Without Users, the accounts of an earlier start are
// taken as they are. It returns them with their passwords, which are kept in the data
// directory's quickstart.json, readable by its owner only; a password that was
// changed since by other means is returned empty.
func OpenQuickstart(o QuickstartOptions) (*Server, []Credential, error) {
	s, err := Open(o.Config, o.Options)
	if err != nil {
		return nil, nil, err
	}
	users, err := s.populate(o.Users)
	if err != nil {
		return nil, nil, errors.Join(fmt.Errorf("set up %s: %w", o.Config.DataDir, err), s.Close())
	}
	return s, users, nil
}

// populate makes the accounts that are missing. Passwords are written down before
// the accounts are made, so that none exists whose password nobody knows.
func (s *Server) populate(wanted []Credential) ([]Credential, error) {
	known, err := s.readCredentials()
	if err != nil {
		return nil, err
	}
	users := wanted
	switch {
	case len(wanted) > 0:
		known = merge(known, wanted)
	case len(known) > 0:
		users = known
	default:
		known = []Credential{{"alice@" + quickstartDomain, NewPassword()}, {"bob@" + quickstartDomain, NewPassword()}}
		users = known
	}
	if err := s.writeCredentials(known); err != nil {
		return nil, err
	}
	users = slices.Clone(users)
	for i := range users {
		if err := s.ensureAccount(&users[i], len(wanted) > 0); err != nil {
			return nil, fmt.Errorf("account %s: %w", users[i].Address, err)
		}
	}
	return users, nil
}

func passwordOf(known []Credential, address string) string {
	for _, c := range known {
		if strings.EqualFold(c.Address, address) {
			return c.Password
		}
	}
	return ""
}

// merge returns known with users added or replaced.
func merge(known, users []Credential) []Credential {
	all := append([]Credential(nil), users...)
	for _, c := range known {
		if passwordOf(users, c.Address) == "" {
			all = append(all, c)
		}
	}
	return all
}

// NewPassword returns a random password of four groups that is easy to type: about 100 bits.
func NewPassword() string {
	t := strings.ToLower(rand.Text())
	return t[0:5] + "-" + t[5:10] + "-" + t[10:15] + "-" + t[15:20]
}

func (s *Server) credentialsFile() string { return filepath.Join(s.cfg.DataDir, "quickstart.json") }

func (s *Server) readCredentials() (known []Credential, err error) {
	b, err := os.ReadFile(s.credentialsFile())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err == nil {
		err = json.Unmarshal(b, &known)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.credentialsFile(), err)
	}
	return known, nil
}

func (s *Server) writeCredentials(all []Credential) error {
	b, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return durable.WriteFile(s.credentialsFile(), append(b, '\n'), 0o600)
}

// ensureAccount makes the domain and the account with a welcome message. The password
// of one that is there already is set only when that was asked for.
func (s *Server) ensureAccount(c *Credential, setPassword bool) error {
	addr, err := envelope.ParseAddress(c.Address)
	if err != nil {
		return err
	}
	accounts := s.house.accounts
	if _, err := accounts.AddDomain(addr.Domain); err != nil && !errors.Is(err, account.ErrExists) {
		return err
	}
	a, err := accounts.Add(addr, c.Password, func(tx store.Tx, a account.Account) error {
		return s.house.mailboxes.CreateDefaults(tx, mailbox.Owner(a.ID))
	})
	if errors.Is(err, account.ErrExists) {
		return s.ensurePassword(addr, c, setPassword)
	}
	if err != nil {
		return err
	}
	return s.welcome(a)
}

func (s *Server) ensurePassword(addr envelope.Address, c *Credential, set bool) error {
	_, err := s.house.accounts.Verify(context.Background(), addr.String(), c.Password)
	switch {
	case !errors.Is(err, account.ErrCredentials):
		return err
	case set:
		return s.house.accounts.SetPassword(addr, c.Password)
	}
	c.Password = ""
	return nil
}

// welcome puts a first message into an account's INBOX.
func (s *Server) welcome(a account.Account) error {
	inbox, err := s.house.mailboxes.Get(mailbox.Owner(a.ID), "INBOX")
	if err != nil {
		return err
	}
	draft := s.house.store.NewDraft()
	defer draft.Discard()
	scan := mime.NewScanner()
	text := welcomeText(a, s.cfg.Hostname, time.Now(), draft.ID())
	scan.Write(text)
	if _, err := draft.Write(text); err != nil {
		return err
	}
	_, err = s.house.mailboxes.Append(inbox.ID, draft, scan.Finish(), time.Now(), nil, func(tx store.Tx, p mailbox.Placed) error {
		trace.Record(tx, draft.ID(), trace.Event{
			Time: time.Now(), Kind: trace.Generated, From: "<>", To: []string{a.Address.String()},
			Size: draft.Size(), Mailbox: a.Address.String() + " INBOX", UID: p.UID,
		})
		return nil
	})
	return err
}

func welcomeText(a account.Account, hostname string, now time.Time, id store.ID) []byte {
	lines := []string{
		"Return-Path: <>",
		"From: postroad <postmaster@" + a.Address.Domain + ">",
		"To: <" + a.Address.String() + ">",
		"Subject: Welcome to postroad",
		"Date: " + now.Format(time.RFC1123Z),
		"Message-ID: <" + id.String() + "@" + hostname + ">",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"",
		"This is your mailbox. It lives in one directory on this machine, and mail that",
		"the server has accepted is on its disk.",
		"",
		"Some things to try at a shell:",
		"",
		"  postroad status",
		"  postroad account list",
		"  postroad trace " + a.Address.String(),
		"",
	}
	return []byte(strings.Join(lines, "\r\n"))
}
