package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/control"
	"postroad/internal/mbox"
)

func (a *app) messageImport() *cobra.Command {
	var im importFlags
	cmd := command{
		use: "import ACCOUNT FILE...", short: "store messages of .eml and mbox files in a mailbox", args: cobra.MinimumNArgs(2),
		long: `Store messages of .eml and mbox files in a mailbox, in order; "-" is standard
input. A file that begins as an mbox file does is one, whatever its name. Lines that end in LF alone get their CR. The date of a message is that of its
mbox "From " line, else of its Date field. What was imported before an error stays.`,
		example: `postroad message import alice@example.test letter.eml
postroad message import alice@example.test --mailbox Archive old-mail.mbox
postroad message import alice@example.test --mailbox Archive --create --seen *.eml`,
		complete: func(c *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
			if len(args) > 0 {
				return nil, cobra.ShellCompDirectiveDefault
			}
			return a.completing(false, accountNames)(c, args, word)
		},
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			if err := im.check(); err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				return a.importFiles(ctx, svc, im, args[0], args[1:])
			})
		},
	}.cobra()
	f := cmd.Flags()
	f.StringVar(&im.mailbox, "mailbox", "INBOX", "where to store them")
	f.BoolVar(&im.create, "create", false, "make the mailbox if it is not there")
	f.BoolVar(&im.seen, "seen", false, "mark them as read")
	f.StringVar(&im.format, "format", "auto", "of the files: auto, eml or mbox")
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"auto", "eml", "mbox"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

type importFlags struct {
	mailbox, format string
	create, seen    bool
}

func (im importFlags) check() error {
	if !slices.Contains([]string{"auto", "eml", "mbox"}, im.format) {
		return usagef("--format %q is not known; use auto, eml or mbox", im.format)
	}
	return nil
}

func (a *app) importFiles(ctx context.Context, svc control.Service, im importFlags, account string, files []string) error {
	to := control.MailboxName{Account: account, Mailbox: im.mailbox}
	if im.create {
		if _, err := svc.CreateMailbox(ctx, to); err != nil && !errors.Is(err, control.Exists) {
			return err
		}
	}
	line := a.progress()
	done, err := svc.Import(ctx, to, a.messagesOf(im, files), func(p control.Imported) {
		line.show("imported %s, %s", count(p.Messages, "message"), size(p.Octets))
	})
	line.end()
	if err != nil && done.Messages == 0 {
		return err
	}
	shown := a.show(done, func(w io.Writer) {
		fmt.Fprintf(w, "imported %s, %s, into %s of %s\n", count(done.Messages, "message"), size(done.Octets), clean(im.mailbox), clean(account))
	})
	return errors.Join(err, shown)
}

// messagesOf yields the messages of files, one after another. Each file is open only
// while its messages are read.
func (a *app) messagesOf(im importFlags, files []string) iter.Seq2[control.ImportMessage, error] {
	return func(yield func(control.ImportMessage, error) bool) {
		for _, name := range files {
			more, err := a.fileMessages(im, name, yield)
			if err != nil {
				yield(control.ImportMessage{}, err)
				return
			}
			if !more {
				return
			}
		}
	}
}

func (a *app) fileMessages(im importFlags, name string, yield func(control.ImportMessage, error) bool) (more bool, err error) {
	f, done, err := a.openImport(name)
	if err != nil {
		return false, err
	}
	defer done()
	isMbox, err := im.isMbox(f)
	if err != nil {
		return false, fmt.Errorf("%s: %w", name, err)
	}
	if isMbox {
		return im.mboxMessages(f, name, yield)
	}
	return yield(im.message(name, control.ImportMessage{Body: mbox.NewCRLF(f)}), nil), nil
}

// openImport opens a file that can be read at any place: standard input, and what
// else is no file, is copied into one first, which has no name any more.
func (a *app) openImport(name string) (f *os.File, done func(), err error) {
	f = a.in
	if name != "-" {
		if f, err = os.Open(name); err != nil {
			return nil, nil, err
		}
	}
	if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && name != "-" {
		return f, func() { f.Close() }, nil
	} else if err == nil && info.IsDir() {
		f.Close()
		return nil, nil, fmt.Errorf("%s is a directory; name the files in it", name)
	}
	copied, err := copyAside(f)
	if name != "-" {
		f.Close()
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", name, err)
	}
	return copied, func() { copied.Close() }, nil
}

func copyAside(r io.Reader) (*os.File, error) {
	f, err := os.CreateTemp("", "postroad-import")
	if err != nil {
		return nil, err
	}
	os.Remove(f.Name())
	_, err = io.Copy(f, r)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// isMbox says how a file is to be read, and leaves it at its beginning.
func (im importFlags) isMbox(f *os.File) (bool, error) {
	if im.format != "auto" {
		return im.format == "mbox", nil
	}
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	if _, err = mbox.NewReader(f, info.Size()); errors.Is(err, mbox.ErrFormat) {
		return false, nil
	}
	return err == nil, err
}

func (im importFlags) mboxMessages(f *os.File, name string, yield func(control.ImportMessage, error) bool) (more bool, err error) {
	info, err := f.Stat()
	if err != nil {
		return false, err
	}
	r, err := mbox.NewReader(f, info.Size())
	for n := 1; err == nil; n++ {
		var m *mbox.Message
		if m, err = r.Next(); err == nil {
			place := fmt.Sprintf("%s: message %d (octet %d)", name, n, m.Offset)
			if !yield(im.message(place, control.ImportMessage{Internal: m.Date, Flags: m.Flags, Body: bufio.NewReader(m.Body)}), nil) {
				return false, nil
			}
		}
	}
	if err == io.EOF {
		return true, nil
	}
	return false, fmt.Errorf("%s: %w", name, err)
}

// message completes a message with what the flags say.
func (im importFlags) message(name string, m control.ImportMessage) control.ImportMessage {
	m.Name = strings.ToValidUTF8(name, "?")
	if im.seen && !slices.Contains(m.Flags, `\Seen`) {
		m.Flags = append(m.Flags, `\Seen`)
	}
	return m
}
