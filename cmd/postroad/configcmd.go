package main

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"postroad"
	"postroad/internal/config"
)

func (a *app) configCommands() *cobra.Command {
	return a.group("config", "the configuration file", a.configCheck(), a.configInit())
}

func (a *app) configCheck() *cobra.Command {
	return command{
		use: "check [FILE]", short: "say what is wrong with a configuration, or print what is in force", args: cobra.MaximumNArgs(1),
		long: `Say what is wrong with a configuration file, or print what is in force with it:
every key with its value. Passwords are stars. What is seldom meant is noted on standard error.`,
		example: "postroad config check postroad.toml", complete: tomlFiles,
		run: func(_ context.Context, _ *cobra.Command, args []string) error {
			if len(args) > 0 {
				a.config = args[0]
			}
			cfg, err := a.loadConfig()
			if err != nil {
				return err
			}
			if err := postroad.CheckConfig(cfg); err != nil {
				return err
			}
			for _, remark := range cfg.Remarks() {
				fmt.Fprintln(a.err, "note:", remark)
			}
			values, err := cfg.Values()
			if err != nil {
				return err
			}
			return a.show(values, func(w io.Writer) { _ = cfg.Write(w) })
		},
	}.cobra()
}

func tomlFiles(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	return []string{"toml"}, cobra.ShellCompDirectiveFilterFileExt
}

func (a *app) configInit() *cobra.Command {
	return command{
		use: "init [FILE]", short: "print a documented configuration to begin with, or write it to a new file", args: cobra.MaximumNArgs(1),
		example: "postroad config init > postroad.toml\npostroad config init /etc/postroad.toml", complete: tomlFiles,
		run: func(_ context.Context, _ *cobra.Command, args []string) error {
			if len(args) == 0 {
				return config.WriteSample(a.out)
			}
			f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			if err := config.WriteSample(f); err != nil {
				f.Close()
				return fmt.Errorf("write %s: %w", args[0], err)
			}
			if err := f.Close(); err != nil {
				return err
			}
			return a.did("wrote", args[0])
		},
	}.cobra()
}
