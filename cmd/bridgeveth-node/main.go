// Command bridgeveth-node is the agent that runs on each node of a Kubernetes cluster. It installs
// the plugins, writes the node's network configuration, and maintains the routes to the pods of the
// other nodes. Pods can also start and stop while the agent does not run.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/agent"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/cluster"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/kernel"
	"github.com/bridgeveth/bridgeveth/cmd/bridgeveth-node/internal/nodes"
	"github.com/bridgeveth/bridgeveth/pkg/setup"
)

// options are the values of the flags.
type options struct {
	agent              agent.Agent
	server, kubeconfig string
	listen             string
	remove             bool
}

func main() {
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		os.Exit(0)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "bridgeveth-node: %v\n", err)
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "bridgeveth-node: %v\n", err)
		os.Exit(1)
	}
}

// parse reads the flags.
func parse(args []string) (*options, error) {
	o := &options{}
	a, set := &o.agent, &o.agent.Settings
	set.Routing = cluster.RoutingAuto
	hostname, _ := os.Hostname()
	if name := os.Getenv("NODE_NAME"); name != "" {
		hostname = name
	}
	f := flag.NewFlagSet("bridgeveth-node", flag.ContinueOnError)
	f.StringVar(&a.Self, "node-name", hostname, "name of this node's Node object; also by the environment variable NODE_NAME")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "file with the address of the API server and the credentials (default: the pod's service account)")
	f.StringVar(&o.server, "server", "", "URL of the API server (default: the service kubernetes, which needs kube-proxy)")
	f.Func("routing", "how packets reach pods of other nodes: auto, direct, vxlan or none (default auto)", func(text string) error {
		set.Routing = cluster.Routing(text)
		if !slices.Contains([]cluster.Routing{cluster.RoutingAuto, cluster.RoutingDirect, cluster.RoutingVXLAN, cluster.RoutingNone}, set.Routing) {
			return errors.New("use auto, direct, vxlan or none")
		}
		return nil
	})
	f.IntVar(&set.VXLANPort, "vxlan-port", 4789, "UDP port of the tunnel, the same on all nodes")
	f.Func("cluster-cidr", "pod ranges of the whole cluster, separated by commas (default: the ranges of all Node objects)", subnets(&set.ClusterCIDRs))
	f.Func("service-cidr", "ranges of the services, separated by commas; the agent refuses a pod range that overlaps with one of them (default: the address of the service kubernetes)", subnets(&set.ServiceCIDRs))
	f.Func("no-masquerade-cidrs", "further subnets, separated by commas; packets to these subnets are not masqueraded", subnets(&set.NoMasquerade))
	f.BoolVar(&set.ShowToNodes, "no-masquerade-to-nodes", false, "packets to the InternalIPs of nodes are not masqueraded")
	f.StringVar(&a.Plugin, "plugin", "", "plugin file to install (default: none)")
	f.StringVar(&a.BinDir, "bin-dir", "/opt/cni/bin", "folder in which the agent installs the plugins")
	f.StringVar(&a.Base, "base-conflist", "", "file with your own network configuration (default: a built-in one)")
	f.StringVar(&a.Conflist.Path, "conflist", "/etc/cni/net.d/10-bridgeveth.conflist", "file of the network configuration that the agent writes")
	f.StringVar(&a.Conflist.Volatile, "volatile-conflist", "/run/bridgeveth-node/conflist", "file that contains the network configuration until the next reboot; --conflist is a link to it. With \"\", --conflist is an ordinary file")
	f.StringVar(&o.listen, "listen", "127.0.0.1:9097", "address and port of /healthz, /readyz, /metrics and /node")
	f.BoolVar(&o.remove, "remove", false, "remove the network configuration, the routes, the VXLAN device and the FORWARD rules for pods of other nodes, then exit")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("%q: unknown argument; flags begin with --", f.Arg(0))
	}
	if host, err := netip.ParseAddr(os.Getenv("KUBERNETES_SERVICE_HOST")); err == nil && len(set.ServiceCIDRs) == 0 {
		set.ServiceCIDRs = []netip.Prefix{netip.PrefixFrom(host, host.BitLen())} // the kubelet sets KUBERNETES_SERVICE_HOST in each pod
	}
	if set.VXLANPort < 1 || set.VXLANPort > 65535 {
		return nil, fmt.Errorf("--vxlan-port: %d is not between 1 and 65535", set.VXLANPort)
	}
	return o, nil
}

// subnets returns a function that parses the value of a flag as a list of subnets, and appends the
// subnets to list.
func subnets(list *[]netip.Prefix) func(string) error {
	return func(text string) error {
		for _, part := range strings.Split(text, ",") {
			p, err := netip.ParsePrefix(strings.TrimSpace(part))
			if err != nil || p != p.Masked() {
				return fmt.Errorf("%q is not a subnet; write it as 10.244.0.0/16", part)
			}
			*list = append(*list, p)
		}
		return nil
	}
}

// run runs the agent until ctx ends.
func run(ctx context.Context, o *options) (err error) {
	a := &o.agent
	a.Log = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if a.Kernel, err = kernel.Open(); err != nil {
		return err
	}
	defer a.Kernel.Close()
	if a.Host, err = setup.CurrentHost(); err != nil {
		return err
	}
	defer a.Host.Close()
	if o.remove {
		return a.Remove()
	}
	wake := make(chan struct{}, 1)
	notify := func() {
		select {
		case wake <- struct{}{}:
		default: // a wake-up is already waiting, which is enough for all changes before it
		}
	}
	if err := kernel.Watch(ctx, notify); err != nil {
		return err
	}
	if err := watchRules(ctx, notify); err != nil {
		return err
	}
	config, err := o.config()
	if err != nil {
		return err
	}
	if a.Nodes, err = nodes.Start(ctx, config, a.Self, notify); err != nil {
		return err
	}
	server := &http.Server{Addr: o.listen, Handler: a.Handler()}
	failed := make(chan error, 1)
	go func() { failed <- server.ListenAndServe() }()
	defer server.Close()
	ended := make(chan error, 1)
	go func() { ended <- a.Run(ctx, wake) }()
	select {
	case err := <-failed:
		return fmt.Errorf("--listen: %w", err)
	case err := <-ended:
		return err
	}
}

// watchRules calls wake after each change of the nftables ruleset, because the change may have
// deleted the rules for pods.
func watchRules(ctx context.Context, wake func()) error {
	host, err := setup.CurrentHost() // a separate Host, because only one goroutine may use a Host
	if err != nil {
		return err
	}
	rules, err := host.WatchRules()
	if err != nil {
		host.Close()
		return err
	}
	go func() {
		defer host.Close()
		defer rules.Close()
		for ctx.Err() == nil {
			if err := rules.Wait(300*time.Millisecond, time.Second, 30*time.Second); err != nil {
				return // the agent also compares regularly without a wake-up
			}
			wake()
		}
	}()
	return nil
}

// config returns the client configuration with which the agent reaches the API server.
func (o *options) config() (*rest.Config, error) {
	if o.kubeconfig != "" {
		return clientcmd.BuildConfigFromFlags(o.server, o.kubeconfig)
	}
	config, err := rest.InClusterConfig()
	if err != nil {
		return nil, fmt.Errorf("%w; outside of a pod, set --kubeconfig", err)
	}
	if o.server != "" {
		config.Host = o.server
	}
	return config, nil
}
