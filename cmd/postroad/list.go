package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"postroad/internal/control"
)

func (a *app) listCommands() *cobra.Command {
	return a.group("list", "addresses whose mail goes to many, from an owner",
		a.listAdd(), a.listList(), a.listShow(), a.listSet(), a.listRemove(),
		a.group("member", "who gets the mail of a list", a.memberAdd(), a.memberList(), a.memberRemove()))
}

const whoPosts = "who may write to it, by the sender's address: members, owners or anyone"

func (a *app) listAdd() *cobra.Command {
	var l control.NewList
	cmd := command{
		use: "add ADDRESS --owner ADDRESS", short: "make a list", args: cobra.ExactArgs(1),
		long: `Make a list. Each member gets what is written to it as a message from NAME-owner, an
address that leads to the owners, so that they hear of what cannot be delivered.
Members may be here or elsewhere, at most 10,000.`,
		example: `postroad list add news@example.org --owner alice@example.org --post owners --title News
postroad list add team@example.org --owner alice@example.org --member bob@example.org --member carol@example.net`,
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			if len(l.Owners) == 0 {
				return usagef("who owns it? name somebody with --owner")
			}
			l.Address = args[0]
			made, err := svc.AddList(ctx, l)
			return a.showMailingList(made, err)
		}),
	}.cobra()
	cmd.Flags().StringArrayVar(&l.Owners, "owner", nil, "who hears of what cannot be delivered; may be given again")
	cmd.Flags().StringArrayVar(&l.Members, "member", nil, "who gets the mail; may be given again")
	cmd.Flags().StringVar(&l.Post, "post", "members", whoPosts)
	cmd.Flags().StringVar(&l.Title, "title", "", "what it is called, for people")
	return cmd
}

func (a *app) showMailingList(l control.List, err error) error {
	if err != nil {
		return err
	}
	return a.show(l, func(w io.Writer) {
		fmt.Fprintf(w, "%s%s\n", clean(l.Address), titled(l))
		fmt.Fprintf(w, "owned by %s\n", clean(strings.Join(l.Owners, ", ")))
		fmt.Fprintf(w, "%s may write to it\n", clean(l.Post))
		fmt.Fprintln(w, count(int64(l.Members), "member"))
	})
}

func titled(l control.List) string {
	if l.Title == "" {
		return ""
	}
	return ": " + clean(l.Title)
}

func (a *app) listList() *cobra.Command {
	return command{
		use: "list [DOMAIN]", short: "list the lists", args: cobra.MaximumNArgs(1),
		example: "postroad list list\npostroad list list example.org --json", complete: a.completing(false, domainNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			return list(a, svc.Lists(ctx, first(args)), []string{"ADDRESS", "MEMBERS", "POST", "OWNERS", "TITLE"}, func(t *table, l control.List) {
				t.row(l.Address, l.Members, l.Post, strings.Join(l.Owners, ", "), cmp.Or(l.Title, "-"))
			}, "no lists")
		}),
	}.cobra()
}

func (a *app) listShow() *cobra.Command {
	return command{
		use: "show ADDRESS", short: "show a list", args: cobra.ExactArgs(1),
		example: "postroad list show team@example.org", complete: a.completing(false, listNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			l, err := svc.List(ctx, args[0])
			return a.showMailingList(l, err)
		}),
	}.cobra()
}

func (a *app) listSet() *cobra.Command {
	var post, title string
	var owners []string
	var cmd *cobra.Command
	cmd = command{
		use: "set ADDRESS", short: "change a list's settings", args: cobra.ExactArgs(1),
		long: `Change a list's settings; what no flag names stays as it is.`,
		example: `postroad list set team@example.org --post anyone
postroad list set team@example.org --owner bob@example.org --owner alice@example.org`,
		complete: a.completing(false, listNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			set := control.SetList{Address: args[0], Owners: owners}
			if cmd.Flags().Changed("post") {
				set.Post = &post
			}
			if cmd.Flags().Changed("title") {
				set.Title = &title
			}
			if set.Post == nil && set.Title == nil && len(owners) == 0 {
				return usagef("nothing to change: give a setting, as --help shows")
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				l, err := svc.SetList(ctx, set)
				return a.showMailingList(l, err)
			})
		},
	}.cobra()
	cmd.Flags().StringArrayVar(&owners, "owner", nil, "its owners, in place of those that it has; may be given again")
	cmd.Flags().StringVar(&post, "post", "", whoPosts)
	cmd.Flags().StringVar(&title, "title", "", "what it is called, for people")
	return cmd
}

func (a *app) listRemove() *cobra.Command {
	var yes bool
	cmd := command{
		use: "remove ADDRESS", short: "remove a list with its members", args: cobra.ExactArgs(1),
		example: "postroad list remove team@example.org", complete: a.completing(false, listNames),
		run: func(ctx context.Context, _ *cobra.Command, args []string) error {
			var l control.List
			err := a.with(ctx, func(ctx context.Context, svc control.Service) (err error) {
				l, err = svc.List(ctx, args[0])
				return err
			})
			if err != nil {
				return err
			}
			if err := a.sure(ctx, yes || l.Members == 0, fmt.Sprintf("remove %s with %s?", l.Address, count(int64(l.Members), "member"))); err != nil {
				return err
			}
			return a.with(ctx, func(ctx context.Context, svc control.Service) error {
				if err := svc.RemoveList(ctx, args[0]); err != nil {
					return err
				}
				return a.did("removed", l.Address)
			})
		},
	}.cobra()
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) memberAdd() *cobra.Command {
	return command{
		use: "add ADDRESS MEMBER...", short: "add members to a list", args: cobra.MinimumNArgs(2),
		example:  "postroad list member add team@example.org bob@example.org carol@example.net\nxargs postroad list member add team@example.org < addresses",
		complete: a.completing(true, listNames, accountNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			l, err := svc.AddMembers(ctx, control.ListMembers{Address: args[0], Members: args[1:]})
			return a.showMailingList(l, err)
		}),
	}.cobra()
}

func (a *app) memberList() *cobra.Command {
	return command{
		use: "list ADDRESS", short: "list the members of a list", args: cobra.ExactArgs(1),
		example: "postroad list member list team@example.org", complete: a.completing(false, listNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			return list(a, svc.Members(ctx, args[0]), []string{"MEMBER"}, func(t *table, m control.Member) { t.row(m.Address) }, "no members")
		}),
	}.cobra()
}

func (a *app) memberRemove() *cobra.Command {
	return command{
		use: "remove ADDRESS MEMBER...", short: "take members from a list", args: cobra.MinimumNArgs(2),
		example: "postroad list member remove team@example.org bob@example.org", complete: a.completing(true, listNames, memberNames),
		run: a.on(func(ctx context.Context, svc control.Service, args []string) error {
			l, err := svc.RemoveMembers(ctx, control.ListMembers{Address: args[0], Members: args[1:]})
			return a.showMailingList(l, err)
		}),
	}.cobra()
}
