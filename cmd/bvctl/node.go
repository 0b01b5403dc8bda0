package main

import (
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/spf13/cobra"
)

// agentWait is the longest time to wait for the node agent, which answers from memory.
const agentWait = 10 * time.Second

// newNode returns "bvctl node".
func newNode() *cobra.Command {
	var agent string
	cmd := &cobra.Command{
		Use: "node", Short: "Show what the agent of a Kubernetes node sees", Args: cobra.NoArgs,
		Long: `Show what bridgeveth-node, the agent of a Kubernetes node, has seen at its last comparison: whether
the node is ready for pods, how full its pod ranges are, and how packets get to the pods of each
other node.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			client := http.Client{Timeout: agentWait}
			answer, err := client.Get("http://" + agent + "/node")
			if err != nil {
				return fmt.Errorf("--agent: %w; start bridgeveth-node on this node, or set the address of its --listen", err)
			}
			defer answer.Body.Close()
			if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusServiceUnavailable {
				return fmt.Errorf("--agent: %s answers %s; set the address of bridgeveth-node's --listen", agent, answer.Status)
			}
			if _, err := io.Copy(cmd.OutOrStdout(), answer.Body); err != nil {
				return err
			}
			if answer.StatusCode != http.StatusOK {
				return errUnhealthy
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&agent, "agent", "127.0.0.1:9097", "address and port of the agent, as in its --listen")
	return cmd
}
