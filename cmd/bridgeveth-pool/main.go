// Command bridgeveth-pool claims blocks of the pools of addresses that hosts share, and records them
// in the store of ipam-simple: docs/pool.md. It also has the commands that "bvctl pool" runs. Only
// this program calls etcd.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/admin"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/host"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/networks"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/registry"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-pool/internal/service"
	"github.com/bridgeveth/bridgeveth/pkg/ipamconfig"
	"github.com/bridgeveth/bridgeveth/pkg/plugin"
)

const usage = `Usage:
  bridgeveth-pool claim [--config FILE | --conf-dir FOLDER]
        claim blocks once, until the stock of this host is full
  bridgeveth-pool claim --config FILE --address ADDRESS [--address ADDRESS ...]
        claim the blocks of these addresses first
  bridgeveth-pool serve [--conf-dir FOLDER]
        keep the stock of this host full
  bridgeveth-pool list [--output table|json] [--config FILE | --conf-dir FOLDER]
        show the hosts and their blocks, as bvctl pool
  bridgeveth-pool check [--config FILE | --conf-dir FOLDER]
        compare etcd and the store of this host; bvctl pool check also looks at the links
  bridgeveth-pool release --host HOST [--config FILE | --conf-dir FOLDER]
        take the blocks from a host that is down; HOST is its name or ID
  bridgeveth-pool forget --host HOST [--config FILE | --conf-dir FOLDER]
        delete the record of a host that may be up; its blocks have no owner after 25 hours

Exit status: 0 if the command succeeded, 1 if check found a contradiction, 2 if the command failed, 3 if claim found no block without an owner, 4 if another host
owns the block of an address.

Flags:
`

// options are the command and the values of the flags.
type options struct {
	command, config, dir, output, host string
	addresses                          []netip.Addr
}

// commands are the values of options.command.
var commands = []string{"claim", "serve", "list", "check", "release", "forget"}

func main() {
	o, err := parse(os.Args[1:], os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bridgeveth-pool: %v\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	err = run(ctx, o)
	if err == nil {
		return
	}
	if errors.Is(err, admin.ErrFound) {
		os.Exit(1) // check has printed what it has found
	}
	fmt.Fprintf(os.Stderr, "bridgeveth-pool: %v\n", err)
	switch {
	case errors.Is(err, registry.ErrTaken):
		os.Exit(plugin.PoolTaken)
	case errors.Is(err, registry.ErrFull):
		os.Exit(plugin.PoolExhausted)
	}
	os.Exit(2)
}

// parse reads the command and the flags. It writes help to out.
func parse(args []string, out io.Writer) (*options, error) {
	o := &options{}
	f := flag.NewFlagSet("bridgeveth-pool", flag.ContinueOnError)
	f.SetOutput(out)
	f.Usage = func() {
		fmt.Fprint(out, usage)
		f.PrintDefaults()
	}
	f.StringVar(&o.config, "config", "", "file with one network configuration; \"-\" is standard input")
	f.StringVar(&o.dir, "conf-dir", "/etc/cni/net.d", "folder of the network configurations")
	f.Func("address", "`address` whose block is claimed first; may be repeated", func(text string) error {
		a, err := netip.ParseAddr(text)
		o.addresses = append(o.addresses, a)
		return err
	})
	f.StringVar(&o.output, "output", "table", "output of list: table or json")
	f.StringVar(&o.host, "host", "", "name or ID of the `host` of release or forget")
	if len(args) > 0 && slices.Contains(commands, args[0]) {
		o.command, args = args[0], args[1:]
	}
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case f.NArg() > 0:
		return nil, fmt.Errorf("%q: unknown argument; the first argument is one of %s, flags begin with --", f.Arg(0), strings.Join(commands, ", "))
	case o.command == "":
		return nil, fmt.Errorf("the command is missing; use one of %s", strings.Join(commands, ", "))
	case o.output != "table" && o.output != "json":
		return nil, fmt.Errorf("--output: %q is none of table, json", o.output)
	case o.command == "serve" && o.config != "":
		return nil, errors.New("--config: serve reads all networks of a folder; use --conf-dir")
	case (o.command == "release" || o.command == "forget") != (o.host != ""):
		return nil, errors.New("--host: release and forget need the name or ID of a host, and no other command has this flag")
	case len(o.addresses) > 0 && o.config == "":
		return nil, errors.New("--address: the address must be of one network; use --config too")
	}
	return o, nil
}

// run runs the command until it has ended or ctx ends.
func run(ctx context.Context, o *options) error {
	self, err := host.Read("/")
	if err != nil {
		return err
	}
	if o.command == "serve" {
		service.Serve(ctx, o.dir, self, os.Stderr)
		return nil
	}
	all, err := read(o)
	if len(all) == 0 {
		return err
	}
	switch o.command {
	case "list":
		return errors.Join(err, list(ctx, o, all, self))
	case "check":
		if err != nil {
			return err
		}
		return admin.Check(ctx, all, self, os.Stdout)
	case "release":
		return errors.Join(err, admin.Release(ctx, all, self, o.host, os.Stdout))
	case "forget":
		return errors.Join(err, admin.Forget(ctx, all, self, o.host, os.Stdout))
	}
	bad := []error{err}
	for _, c := range all {
		bad = append(bad, claim(ctx, c, self, o.addresses))
	}
	return errors.Join(bad...)
}

// list prints the hosts and their blocks.
func list(ctx context.Context, o *options, all []*ipamconfig.Config, self host.Host) error {
	l, err := admin.List(ctx, all, self)
	if err != nil && len(l.Hosts) == 0 {
		return err
	}
	if o.output == "json" {
		return errors.Join(l.JSON(os.Stdout), err)
	}
	return errors.Join(l.Table(os.Stdout), err)
}

// read returns the networks with a pool. It is an error if there are none.
func read(o *options) (list []*ipamconfig.Config, err error) {
	from := o.config
	if from == "" {
		from = o.dir
		list, err = networks.Folder(o.dir)
	} else {
		var text []byte
		if text, err = readFile(o.config); err == nil {
			list, err = networks.Parse(text)
		}
	}
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("%s: no network has the key ipam.pool; add the key, as docs/pool.md says", from)
	}
	return list, err
}

// readFile returns the content of a file, or standard input.
func readFile(path string) ([]byte, error) {
	if path == "-" {
		return io.ReadAll(os.Stdin)
	}
	return os.ReadFile(path)
}

// claim fills the stock of a network once, and claims the blocks of addresses.
func claim(ctx context.Context, c *ipamconfig.Config, self host.Host, addresses []netip.Addr) error {
	s := service.Open(c, self)
	defer s.Close()
	return s.Fill(ctx, addresses...)
}
