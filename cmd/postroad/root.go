package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"postroad"
	"postroad/internal/control"
)

// The exit codes.
const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// run carries out a command line.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(args)
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	cmd, err := root.ExecuteContextC(ctx)
	if o, ok := a.out.(*output); ok && err == nil {
		err = o.failed
	}
	if err == nil {
		return exitOK
	}
	if ctx.Err() != nil && (errors.Is(err, control.Cancelled) || errors.Is(err, context.Canceled)) {
		err = errors.New("interrupted")
	}
	a.complain(err)
	if _, ok := errors.AsType[*usageError](err); ok || !a.started {
		fmt.Fprintf(a.err, "see %s --help\n", cmd.CommandPath())
		return exitUsage
	}
	return exitFailure
}

// complain writes an error, then what to do about it when that is known.
func (a *app) complain(err error) {
	if err == errQuiet {
		return
	}
	hint := ""
	if e, ok := errors.AsType[*control.Error](err); ok {
		hint = e.Hint
	}
	if a.json {
		_ = json.NewEncoder(a.err).Encode(struct {
			Error string       `json:"error"`
			Code  control.Code `json:"code,omitempty"`
			Hint  string       `json:"hint,omitempty"`
		}{err.Error(), codeOf(err), hint})
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") { // errors that were joined have one each
		fmt.Fprintf(a.err, "postroad: %s\n", clean(line))
	}
	if hint != "" {
		fmt.Fprintf(a.err, "hint: %s\n", clean(hint))
	}
}

func codeOf(err error) control.Code {
	if e, ok := errors.AsType[*control.Error](err); ok {
		return e.Code
	}
	return ""
}

// errQuiet fails without words: what there was to say has been said.
var errQuiet = errors.New("")

// usageError is a call that makes no sense.
type usageError struct{ text string }

func (e *usageError) Error() string { return e.text }

func usagef(format string, args ...any) error { return &usageError{fmt.Sprintf(format, args...)} }

// root is the tree of commands.
func (a *app) root() *cobra.Command {
	root := a.group("postroad", "a whole mail server: SMTP in, a durable spool, delivery, IMAP",
		a.quickstart(), a.serve(), a.configCommands(),
		a.domainCommands(), a.accountCommands(), a.aliasCommands(), a.listCommands(), a.banCommands(), a.certCommands(), a.dkimCommands(), a.tlsCommands(), a.webhookCommands(),
		a.queueCommands(), a.destinationCommands(), a.holdRuleCommands(), a.suppressionCommands(), a.probeCommand(), a.mailboxCommands(), a.messageCommands(),
		a.traceCommand(), a.statusCommand(), a.checkCommand(), a.compactCommand(), a.indexCommands(), a.benchCommands(), a.versionCommand(),
	)
	root.Long = `postroad is a whole mail server in one program and one data directory.

Try it:        postroad quickstart
Run it:        postroad config init > postroad.toml
               postroad serve --config postroad.toml
Look after it: every other command; they ask the running server, or open the data
               directory themselves when no server runs.`
	f := root.PersistentFlags()
	f.BoolVar(&a.json, "json", false, "print JSON: one object, or one on each line of a list")
	f.StringVar(&a.dir, "dir", "", "the data directory (default: what the configuration says)")
	f.StringVar(&a.config, "config", "", "the configuration file (default postroad.toml, if there is one)")
	f.StringVar(&a.socket, "socket", "", "the control socket of the server to ask (default control.sock in the data directory)")
	root.Version = postroad.Version()
	root.SetVersionTemplate("postroad {{.Version}}\n")
	root.SilenceErrors, root.SilenceUsage = true, true
	root.PersistentPreRun = func(*cobra.Command, []string) { a.started = true }
	root.CompletionOptions.HiddenDefaultCmd = false
	return root
}

// group is a command that only has commands of its own.
func (a *app) group(name, short string, commands ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{Use: name, Short: short}
	c.AddCommand(commands...)
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return usagef("%s has no command %q%s", c.CommandPath(), args[0], suggestion(c, args[0]))
		}
		_ = c.Help()
		return usagef("%s needs a command", c.CommandPath())
	}
	c.Args = cobra.ArbitraryArgs
	return c
}

func suggestion(c *cobra.Command, word string) string {
	c.SuggestionsMinimumDistance = 2
	near := c.SuggestionsFor(word)
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

// command describes one command; Use begins with its name and shows its arguments.
type command struct {
	use, short, long, example string
	args                      cobra.PositionalArgs
	complete                  cobra.CompletionFunc
	run                       func(ctx context.Context, c *cobra.Command, args []string) error
}

// cobra makes the command.
func (c command) cobra() *cobra.Command {
	cmd := &cobra.Command{Use: c.use, Short: c.short, Args: c.args, ValidArgsFunction: c.complete}
	cmd.Long = c.long
	if c.long == "" {
		cmd.Long = strings.ToUpper(c.short[:1]) + c.short[1:] + "."
	}
	if c.example != "" {
		cmd.Example = "  " + strings.ReplaceAll(strings.TrimSpace(c.example), "\n", "\n  ")
	}
	if cmd.ValidArgsFunction == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return c.run(cmd.Context(), cmd, args) }
	return cmd
}

// printJSON writes v on one line.
func (a *app) printJSON(v any) error {
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// show prints one value: as JSON, or as human says.
func (a *app) show(v any, human func(w io.Writer)) error {
	if a.json {
		return a.printJSON(v)
	}
	human(a.out)
	return nil
}

// did says what was done: a sentence, or an object with one key.
func (a *app) did(verb, what string) error {
	return a.show(map[string]string{verb: what}, func(w io.Writer) { fmt.Fprintf(w, "%s %s\n", verb, clean(what)) })
}
