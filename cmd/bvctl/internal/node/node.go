// Package node has the command "bvctl node".
package node

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	"github.com/bridgeveth/bridgeveth/cmd/bvctl/internal/cli"
	"github.com/bridgeveth/bridgeveth/pkg/inventory"
)

// AgentPort is the port in the agent's default for --listen.
const AgentPort = "9097"

const (
	agentWait   = 5 * time.Second // the longest time to wait for the agent, which answers from memory
	agentAnswer = 16 << 20        // the longest answer in bytes; 5,000 peers take less than 1 MiB
)

// New returns "bvctl node".
func New(*inventory.Inventory) *cobra.Command {
	var agent string
	cmd := &cobra.Command{
		Use: "node", Short: "Show what the agent of a Kubernetes node sees", Args: cobra.NoArgs,
		Long: `Show what bridgeveth-node, the agent of a Kubernetes node, has seen at its last comparison: whether
the node is ready for pods, how full its pod ranges are, and how packets get to the pods of each
other node.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			text, ready, err := AskAgent(cmd.Context(), agent)
			if err != nil {
				return fmt.Errorf("--agent: %w; start bridgeveth-node on this node, or set the address of its --listen", err)
			}
			fmt.Fprint(cmd.OutOrStdout(), text)
			if !ready {
				return cli.ErrUnhealthy
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&agent, "agent", net.JoinHostPort("127.0.0.1", AgentPort), "address and port of the agent, as in its --listen")
	return cmd
}

// AskAgent returns what the agent at an address says about its node, and whether the node is ready.
func AskAgent(ctx context.Context, address string) (text string, ready bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, agentWait)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/node", nil)
	if err != nil {
		return "", false, err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", false, err
	}
	defer answer.Body.Close()
	ready = answer.StatusCode == http.StatusOK
	if !ready && answer.StatusCode != http.StatusServiceUnavailable {
		return "", false, fmt.Errorf("%s answers %s", address, answer.Status)
	}
	body, err := io.ReadAll(io.LimitReader(answer.Body, agentAnswer))
	return string(body), ready, err
}
