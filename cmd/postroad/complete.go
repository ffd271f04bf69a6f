package main

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

// completions bounds what a shell is told, and completeTime how long it waits.
const (
	completions  = 200
	completeTime = 2 * time.Second
)

// names lists what may stand at an argument's place.
type names func(ctx context.Context, svc control.Service, args []string, add func(string) bool) error

// completing offers the names for the argument that is being typed; args has one
// list for each place, the last counts for all that follow when more is set.
func (a *app) completing(more bool, places ...names) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
		i := len(args)
		if i >= len(places) && more {
			i = len(places) - 1
		}
		if i >= len(places) {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return a.offer(places[i], args, word), cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) offer(list names, args []string, word string) (found []string) {
	ctx, cancel := context.WithTimeout(context.Background(), completeTime)
	defer cancel()
	_ = a.with(ctx, func(ctx context.Context, svc control.Service) error { // no names is the answer to an error
		return list(ctx, svc, args, func(s string) bool {
			if strings.HasPrefix(s, word) {
				found = append(found, s)
			}
			return len(found) < completions
		})
	})
	return found
}

func accountNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Accounts(ctx, "") {
		if err != nil || !add(v.Address) {
			return err
		}
	}
	return nil
}

func domainNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	list, err := svc.Domains(ctx)
	for _, v := range list {
		add(v.Name)
	}
	return err
}

// nothing is for a place where no name can be offered.
func nothing(context.Context, control.Service, []string, func(string) bool) error { return nil }

func domainAliasNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	list, err := svc.Domains(ctx)
	for _, v := range list {
		if v.Alias != "" {
			add(v.Name)
		}
	}
	return err
}

func forwardNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Forwards(ctx, "") {
		if err != nil || !add(v.Account) {
			return err
		}
	}
	return nil
}

func delegationNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Delegations(ctx) {
		if err != nil || !add(v.As) {
			return err
		}
	}
	return nil
}

// delegateNames are those who may send as the first argument.
func delegateNames(ctx context.Context, svc control.Service, args []string, add func(string) bool) error {
	for v, err := range svc.Delegations(ctx) {
		if err != nil || v.As == args[0] && !add(v.Delegate) {
			return err
		}
	}
	return nil
}

func listNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Lists(ctx, "") {
		if err != nil || !add(v.Address) {
			return err
		}
	}
	return nil
}

// memberNames are the members of the list that is the first argument.
func memberNames(ctx context.Context, svc control.Service, args []string, add func(string) bool) error {
	for v, err := range svc.Members(ctx, args[0]) {
		if err != nil || !add(v.Address) {
			return err
		}
	}
	return nil
}

func aliasNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Aliases(ctx, "") {
		if err != nil || !add(v.Address) {
			return err
		}
	}
	return nil
}

func bannedNetworks(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Bans(ctx) {
		if err != nil || !add(v.Network) {
			return err
		}
	}
	return nil
}

func tlsDomains(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.TLSDomains(ctx) {
		if err != nil || !add(v.Domain) {
			return err
		}
	}
	return nil
}

// obtainedNames are those of certificates that ACME obtains.
func obtainedNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Certificates(ctx) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(v.Source, "acme ") && !add(v.Names[0]) {
			return nil
		}
	}
	return nil
}

func queueIDs(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Queue(ctx, control.QueueFilter{Limit: 10 * completions}) {
		if err != nil || !add(v.ID) {
			return err
		}
	}
	return nil
}

// mailboxNames lists the mailboxes of the account that is the first argument.
func mailboxNames(ctx context.Context, svc control.Service, args []string, add func(string) bool) error {
	list, err := svc.Mailboxes(ctx, args[0])
	for _, v := range list {
		add(v.Name)
	}
	return err
}

// destinationNames are those of which something is known.
func destinationNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Destinations(ctx, "") {
		if err != nil || !add(v.Name) {
			return err
		}
	}
	return nil
}

// suspendedNames are the destinations that are suspended.
func suspendedNames(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.Destinations(ctx, "") {
		if err != nil || !v.Suspended.IsZero() && !add(v.Name) {
			return err
		}
	}
	return nil
}

func holdRuleNumbers(ctx context.Context, svc control.Service, _ []string, add func(string) bool) error {
	for v, err := range svc.HoldRules(ctx) {
		if err != nil || !add(strconv.FormatUint(v.Number, 10)) {
			return err
		}
	}
	return nil
}

// suppressedNames are the addresses that the mail of the account that is the first argument is not sent to.
func suppressedNames(ctx context.Context, svc control.Service, args []string, add func(string) bool) error {
	for v, err := range svc.Suppressions(ctx, args[0]) {
		if err != nil || !add(v.Address) {
			return err
		}
	}
	return nil
}
